"""Backward of a program: its stages from the last to the first, as links from one gradient to the next (see `links`).

For each stage: the activation's slope and the norm's part, in place on the gradient g of its output; and the
gradient of its input, band by band, with the slope and norm of the stage below at once. Along with it
goes the weight's gradient, group by group, where that is small; else it is added up in pieces, all samples
together. A gradient is written over the map it is of, once nothing will read the map any more. So
beyond what was kept, backward holds little more than the gradients it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from minitl.arrays import itemsize, positions, size
from minitl.fused import calls
from minitl.fused.excite import Kept, excite_back, kept_for_slope
from minitl.fused.links import Band, Links
from minitl.fused.plan import NO_SLOT, Plan, Slot
from minitl.fused.program import Program, Squeeze, Stage
from minitl.kernels import elementwise, pointwise
from minitl.kernels.channels import ONE, ROUND, SCALE_SHIFT, SHIFT, join_sums, sums_call
from minitl.kernels.groups import Groups
from minitl.kernels.tasks import Place, Recorder, aligned, given
from minitl.ops.norms.batch_norm import COMBINE, FACTORS
from minitl.parameters import Parameter
from minitl.records import OpRecord


def backward(program: Program, *, own: bool) -> Plan:
    """The plan for the output's gradient, what the records hold and the parameters; it writes over what was held.

    It gives the input's gradient, where that is wanted, and those of the parameters that train and that nobody took.
    `own` says that the output's gradient may be written over.
    """
    return program.planned(("backward", own), lambda: _Backward(program).all(own=own))


class _Backward(Links):
    def __init__(self, program: Program) -> None:
        shapes = (h.kept.shape if h.kept.dtype == program.dtype else (h.kept.nbytes,) for h in program.holdings)
        super().__init__(program, [program.stages[-1].y, *shapes])
        held = zip(program.holdings, self.inputs[1:], strict=True)
        self.kept: Kept = {(h.record, h.kept.tensor): slot for h, slot in held}
        self.gradients: dict[Parameter, Slot] = {}
        self._sums: list[Callable[[], None]] = []  # to finish when all units are done
        gated = (calls.filter_size(s.conv, back=True) for s in program.stages if s.gated)
        self.panels_bytes = aligned(max(gated, default=0) * itemsize(self.dtype))

    def all(self, *, own: bool) -> Plan:
        """The whole plan: all stages, from the last to the first."""
        stages, gy, residual = self.program.stages, self.inputs[0], self.program.residual
        g, own = self.descend(stages[-1], gy, own=own and not residual)
        for number, stage in reversed(list(enumerate(stages))):
            self.enter(stage)
            if stage.batch:
                g, own = self.batch_norm(stage, g, own=own), True
            gx = self.convolution(stage, g, number)
            if gx is None:
                break
            g, own = gx, True
        else:
            if residual:
                self.residual(stages[0], g, gy)
            self.barrier()
        self.ready.run()
        return self.finish([gx, *map(self.gradients.get, self.program.parameters)])

    def barrier(self) -> None:
        """Wait for all units, which have then read the parameters of the stages above; then finish the sums."""
        complete = list(self.gradients)
        super().barrier()
        for parameter in complete:
            self.offer(parameter, self.gradients[parameter])
        for finish in self._sums:
            finish()
        self._sums.clear()

    # A stage's activation and norm.

    def descend(self, stage: Stage, gy: Slot, *, own: bool) -> tuple[Slot, bool]:
        """The top stage's slope and norm, of the gradient that comes from above: over it, if it is our own."""
        changed = stage.rule is not None or not stage.batch
        g = self.new(stage.y) if changed and not own else gy
        step, slots = self.down(stage, g)
        self.link(step, stage.y, gy, *slots)
        return g, changed or own

    def down(self, stage: Stage, g: Slot) -> tuple[Callable[..., None], tuple[Slot, ...]]:
        """The step for a band: g = gy slope, and the norm's part. It takes gy's place, and those of the arrays."""
        c, norm, dtype, groups = stage.y[3], stage.norm, self.dtype, Groups(stage.y)
        x_hat = scale = dots = NO_SLOT
        kept, packed = kept_for_slope(stage.act, self.kept) if stage.act else (NO_SLOT, NO_SLOT)
        sums = self.zeros((len(groups), c), "float64")
        if stage.batch:
            x_hat = self.kept[norm, "x_hat"] if norm.needs[0] or norm.needs[1] else g
            dots = self.zeros((len(groups), c), "float64")
            self.totals = sums, dots
        else:
            scale = calls.norm_factors(self.ready, norm)[0]
            if norm.needs[2]:
                self._sums.append(lambda: self.sum_up(norm.parameters[1], sums))
        what = stage.what if stage.rule else (stage.what[0], elementwise.IDENTITY, "")

        def step(to: Recorder, band: Band, gy: Place, g: Place, *places: Place) -> None:
            *others, sums, dots = places
            at = band.n // groups.size * c * 8
            sums, dots = sums + at, dots + at if stage.batch else dots
            elementwise.down_call(to, band.span, c, dtype, what, gy, g, *others, sums, dots)

        return step, (g, scale, x_hat, kept, packed, sums, dots)

    def sum_up(self, parameter: Parameter, sums: Slot) -> None:
        """A gradient from the sums of the groups."""
        count, c = sums.shape
        self.gradients[parameter] = self.new((c,))

        def add(to: Recorder, sums: Place, out: Place) -> None:
            join_sums(to, count, c, self.dtype, sums)
            ROUND.call(to, ONE, c, self.dtype, sums, out)

        self.ready.add(add, sums, self.gradients[parameter])

    def batch_norm(self, stage: Stage, gy: Slot, *, own: bool) -> Slot:
        """gx = gamma inv_std (gy - sum gy / m - x_hat sum (gy x_hat) / m), over gy or else over x_hat."""
        self.barrier()
        norm, dtype, (count, c), (sums, dots) = stage.norm, self.dtype, self.totals[0].shape, self.totals
        vectors = [self.new((c,)) if norm.needs[0] else NO_SLOT for _ in range(3)]
        inv_std = self.kept[norm, "inv_std"] if norm.needs[0] else NO_SLOT
        for parameter, needed in zip(norm.parameters, norm.needs[1:3], strict=False):
            if needed:
                self.gradients[parameter] = self.new((c,))
        gradients = [self.gradients.get(p, NO_SLOT) for p in norm.parameters[:2]]

        def finish(to: Recorder, dots: Place, sums: Place, *places: Place) -> None:
            for groups, gradient, needed in zip((dots, sums), places, norm.needs[1:3], strict=False):
                join_sums(to, count, c, dtype, groups)
                if needed:
                    ROUND.call(to, ONE, c, dtype, groups, gradient)
            if norm.needs[0]:
                FACTORS.call(to, ONE, c, dtype, *places[2:4], sums, dots, positions(stage.y), *places[4:])

        self.ready.add(finish, dots, sums, *gradients, self.values[norm.parameters[0]], inv_std, *vectors)
        if not norm.needs[0]:
            return gy
        x_hat = self.kept[norm, "x_hat"]
        out = gy if own else x_hat

        def combine(to: Recorder, band: Band, gy: Place, x_hat: Place, out: Place, *factors: Place) -> None:
            COMBINE.call(to, band.span, c, dtype, gy, x_hat, *factors, out)

        self.link(combine, stage.y, gy, x_hat, out, *vectors, in_order=True)
        return out

    # A stage's convolution.

    def convolution(self, stage: Stage, g: Slot, number: int) -> Slot | None:
        """The gradients of its weight and of its input, the latter through what stands below."""
        below = self.program.stages[number - 1] if number else None
        trains, passes = stage.conv.needs[-1], stage.conv.needs[0]
        along = trains and calls.by_groups(stage)
        if stage.gated and stage.squeeze:
            self.barrier()
            return self.pass_on(stage, below, g, more=self.gated(stage, stage.squeeze, g))
        squeezed = stage.squeeze is not None
        last = trains and not along and passes and below is None and not squeezed  # the input is not written over
        if trains and not along and not last:
            self.barrier()
            self.weight(stage, g)
        if last and len(self.program.stages) == 1:  # a head lets go of its norm's map before its weight is packed
            self.barrier()
        gx = None
        if not passes:
            if along:
                self.weight_alone(stage, g)
        elif stage.squeeze and stage.squeeze.scale:
            gx = self.excite(stage, stage.squeeze, stage.squeeze.scale, below, g)
        else:
            gx = self.pass_on(stage, below, g)
        if not passes or last:
            self.barrier()
        if last:
            self.weight(stage, g)
        return gx

    def filters(self, stage: Stage) -> Slot:
        """The weight as the input's gradient reads it; as it is where a gate is yet to be multiplied in."""
        parameter = stage.conv.parameters[0]
        if stage.gated:
            return self.values[parameter]
        filters = calls.filters(self.ready, stage.conv, back=True)
        if parameter in self.gradients:  # the weight is read for the last time
            self.ready.run()
            self.offer(parameter, self.gradients[parameter])
        return filters

    def weight(self, stage: Stage, g: Slot) -> None:
        """The weight's gradient: tasks are pieces of it."""
        parameter = stage.conv.parameters[0]
        gw = self.gradients[parameter] = self.new(stage.weight)
        scratch, tasks = pointwise.grad_weight_scratch(stage.x, stage.y[3], self.dtype)

        def record(to: Recorder) -> None:
            pointwise.grad_weight_calls(to, stage.x, stage.y, self.dtype, given(3))

        part = partial(Recorder.scratch, nbytes=scratch)
        self.recorded(record, self.kept[stage.conv, "x"], g, gw, part=part, tasks=tasks)

    def chains(self, stage: Stage) -> Slot:
        """Room for the gradient of the weight by each group; they are joined after the barrier."""
        parameter = stage.conv.parameters[0]
        chains = self.new((len(Groups(stage.y)), *calls.chain_shape(stage)))

        def finish() -> None:
            gw, total = self.new(stage.weight), self.new((size(stage.weight),), "float64")
            self.do(partial(calls.join_chains, stage), chains, total, gw)
            self.offer(parameter, gw)
            self.gradients[parameter] = gw

        self._sums.append(finish)
        return chains

    def weight_alone(self, stage: Stage, g: Slot) -> None:
        """The weight's gradient, group by group, where no gradient passes on."""

        def add(to: Recorder, band: Band, x: Place, g: Place, chains: Place, table: Place) -> None:
            calls.add_to_chain(to, stage, band, band.rows, calls.as_numbers(to, stage, band, x, table), g, chains)

        self.link(add, stage.y, self.kept[stage.conv, "x"], g, self.chains(stage), self.table(stage))

    def pass_on(self, stage: Stage, below: Stage | None, g: Slot, more: Slot = NO_SLOT) -> Slot:
        """The input's gradient, band by band, and at once the slope and norm of the stage below.

        It goes where the input was kept for the weight, once that has read it; but not over the program's own input.
        Where the activation below reads its output there, the bands pass through scratch memory. `more` comes back
        through a gate.
        """
        dtype, c = self.dtype, stage.x[3]
        inside = below is not None or stage.squeeze is not None  # the input is not the program's own
        trains, through = stage.conv.needs[-1], below is not None and below.keeps_output
        if trains and inside:
            gx = self.kept[stage.conv, "x"]
        else:
            gx = self.kept[below.act, "y"] if through and below and below.act else self.new(stage.x)
        step, slots = self.down(below, gx) if below else (None, (gx,))
        itself, gate = itemsize(dtype), self.kept[stage.conv, "gate"] if stage.gated else NO_SLOT
        along = trains and calls.by_groups(stage)
        chains, x = (self.chains(stage), self.kept[stage.conv, "x"]) if along else (NO_SLOT, NO_SLOT)

        def make(
            to: Recorder, band: Band, g: Place, filters: Place, gate: Place, more: Place, x: Place,
            chains: Place, gx: Place, *places: Place,
        ) -> None:  # fmt: skip
            panels, to_here = filters, gx
            if along:
                first, stop = map(stage.rows_reached, band.rows)
                stop = stage.y[1] if band.rows[1] == stage.x[1] else stop
                calls.add_to_chain(to, stage, band, (first, stop), x, g, chains)
            if stage.gated:
                panels = to.scratch(self.panels_bytes)
                if band.rows[0] == 0:
                    calls.pack_gated(to, stage, filters, gate, band.n, panels, back=True)
            if through:
                room = to.scratch((band.span[1] - band.span[0]) * c * itself, self.panels_bytes)
                to_here = room + -band.span[0] * c * itself
            calls.convolve_back(to, stage, band, g, panels, to_here)
            if stage.gated:
                SHIFT.call(to, band.span, c, dtype, to_here, more + band.n * c * itself, to_here)
            if step:
                step(to, band, to_here, gx, *places)

        self.link(make, stage.x, g, self.filters(stage), gate, more, x, chains, *slots, reach=stage.rows_reached)
        return gx

    def residual(self, first: Stage, g: Slot, gy: Slot) -> None:
        """The gradient that went past the block."""
        c, dtype = first.x[3], self.dtype

        def add(to: Recorder, band: Band, g: Place, gy: Place) -> None:
            calls.add(to, band, c, dtype, g, gy, g)

        self.link(add, first.x, g, gy)

    # Squeeze-and-excite.

    def excite(self, stage: Stage, se: Squeeze, scale: OpRecord, below: Stage | None, g: Slot) -> Slot:
        """Through the convolution, then through the gate and through the means it was made of."""
        dtype, c, area = self.dtype, stage.x[3], positions(stage.x[1:])
        g = self.pass_on(stage, None, g)
        dots, itself = self.new((self.count, 1, 1, c)), itemsize(dtype)

        def multiply(to: Recorder, band: Band, g: Place, x: Place, dots: Place) -> None:
            if band.rows[1] == stage.x[1]:
                totals, n = to.scratch(c * 8), band.n
                sums_call(to, (n * area, (n + 1) * area), c, dtype, g, x, totals)
                ROUND.call(to, ONE, c, dtype, totals, dots + n * c * itself)

        self.link(multiply, stage.x, g, self.kept[scale, "x"], dots)
        self.barrier()
        more = self.through_means(se, dots)
        step, slots = self.down(below, g) if below else (None, (g,))

        def spread(to: Recorder, band: Band, gate: Place, more: Place, g: Place, *places: Place) -> None:
            own, plus = (at + band.n * c * itself for at in (gate, more))
            SCALE_SHIFT.call(to, band.span, c, dtype, g, own, plus, g)
            if step:
                step(to, band, g, g, *places)

        self.link(spread, stage.x, self.kept[scale, "gate"], more, *slots)
        return g

    def through_means(self, se: Squeeze, slopes: Slot) -> Slot:
        """What every position gets back through the gate's layers, and through the means."""
        slopes, weights, biases = excite_back(self, se, slopes, self.kept)
        self.gradients |= weights
        for bias, sums in biases.items():
            self.sum_up(bias, sums)
        return slopes

    def gated(self, stage: Stage, se: Squeeze, g: Slot) -> Slot:
        """The weight's and the gate's gradient of a convolution that takes the gate (see `ops.gated_conv`).

        Returns what every position gets back through the gate.
        """
        conv, parameter = stage.conv, stage.conv.parameters[0]
        gw = self.gradients[parameter] = self.new(parameter.value.shape)
        of_gate = self.zeros((self.count, 1, 1, stage.x[3]), "float64")
        record_all = partial(calls.grad_gated, stage=stage)
        slots = self.kept[conv, "x"], g, gw, self.values[parameter], self.kept[conv, "gate"], of_gate
        self.recorded(record_all, *slots, part=partial(record_all, samples=1))
        slopes = self.new((self.count, 1, 1, stage.x[3]))
        self.do(lambda of_gate, slopes: np.copyto(slopes, of_gate), of_gate, slopes)
        return self.through_means(se, slopes)
