"""Backward of a program: its stages from the last to the first, as links from one gradient to the next (see `work`).

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

from minitl.arrays import Array, positions
from minitl.fused import calls
from minitl.fused.excite import excite_back
from minitl.fused.forward import norm_factors
from minitl.fused.program import Run, Squeeze, Stage, Values
from minitl.fused.work import PASSING, Band, Unit, Work
from minitl.kernels import elementwise, pointwise
from minitl.kernels.channels import combine_call, dots_call, gate_call
from minitl.kernels.compile import Lazily
from minitl.kernels.elementwise import BATCH, FROZEN
from minitl.kernels.groups import Groups
from minitl.kernels.sums import in_order
from minitl.kernels.tasks import NOTHING, Place, Recorder
from minitl.ops.activations.activation import tensor_of
from minitl.ops.norms.batch_norm import backward_factors
from minitl.parameters import Parameter
from minitl.records import OpRecord, Take
from minitl.saved import Saved

channels, maps = Lazily("minitl.kernels.compiled.channels"), Lazily("minitl.kernels.compiled.maps")

ByParameter = dict[Parameter, Array]


def backward(
    run: Run, given: list[Array], values: Values, work: Work, take: Take, *, own: bool
) -> tuple[Array | None, ByParameter]:
    """The input's gradient, where it is wanted, and those of the trained parameters. Destroys what was kept.

    `given` holds the gradient of the output, and is emptied: so it is let go of when it was read for the last time.
    `own` says that it may be written over.
    `take(parameter, gradient)` is offered each gradient once
    nothing will read the parameter any more; those that it does not take are returned.
    """
    walk = _Backward(run, values, work, take)
    return walk(given, own=own), walk.gradients


class _Backward:
    def __init__(self, run: Run, values: Values, work: Work, take: Take) -> None:
        self.program, self.records, self.values, self.work = run.program, run.records, values, work
        self.take = take
        self.gradients: ByParameter = {}
        self._sums: list[Callable[[], None]] = []  # to finish when all units are done
        gated = (calls.filter_size(s, work.dtype, back=True) for s in self.program.stages if s.gated)
        self.panels_bytes = -(-max(gated, default=0) * calls.itemsize(work.dtype) // 64) * 64

    def kept(self, record: OpRecord, tensor: str) -> Array:
        """What the record kept under that name."""
        return self.records[record].saved[tensor]

    def __call__(self, given: list[Array], *, own: bool) -> Array | None:
        stages = self.program.stages
        past = given[0] if self.program.residual else None
        g, own = self.descend(stages[-1], given.pop(), own=own and past is None)
        for number in reversed(range(len(stages))):
            stage = stages[number]
            self.work.enter(stage)
            if stage.batch:
                g, own = self.batch_norm(stage, g, number, own=own), True
            for record in (stage.norm, *((stage.act,) if stage.act else ())):
                self.records[record].saved = Saved()  # what is still to be read, the links hold
            gx = self.convolution(stage, g, number)
            self.records[stage.conv].saved = Saved()
            if gx is None:
                return None
            g, own = gx, True
        if past is not None:
            self.residual(stages[0], g, past)
        self.barrier(("back", "end"))
        return g

    def barrier(self, name: tuple[object, ...]) -> None:
        """Wait for all units, which have then read the parameters of the stages above; then finish the sums."""
        complete = list(self.gradients)
        self.work.barrier(name)
        for parameter in complete:
            if self.take(parameter, self.gradients[parameter]):
                del self.gradients[parameter]
        for finish in self._sums:
            finish()
        self._sums.clear()

    # A stage's activation and norm.

    def descend(self, stage: Stage, gy: Array, *, own: bool) -> tuple[Array, bool]:
        """The top stage's slope and norm, of the gradient that comes from above: over it, if it is our own."""
        changed = stage.rule is not None or not stage.batch
        g = self.work.new(stage.y) if changed and not own else gy
        step, arrays = self.down(stage, g)
        self.work.link(step, stage.y, gy, *arrays)
        return g, changed or own

    def down(self, stage: Stage, g: Array) -> tuple[Callable[..., None], tuple[Array, ...]]:
        """The step for a band: g = gy slope, and the norm's part. It takes gy's place, and those of the arrays."""
        work, c, norm, rule = self.work, stage.y[3], stage.norm, stage.rule
        packed = kept = x_hat = scale = dots = NOTHING
        groups = Groups(stage.y)
        if stage.act and rule:
            packed = self.kept(stage.act, tensor_of(stage.codes)) if stage.codes else NOTHING
            kept = self.kept(stage.act, "x" if stage.keeps_input else "y") if not stage.keeps_codes_only else NOTHING
        sums = work.zeros((len(groups), c), "float64")
        if stage.batch:
            x_hat = self.kept(norm, "x_hat") if norm.needs[0] or norm.needs[1] else g
            dots = work.zeros((len(groups), c), "float64")
            self.totals = sums, dots
        else:
            scale = norm_factors(stage, self.values, work)[0]
            if norm.needs[2]:
                self._sums.append(lambda: self.sum_up(norm.parameters[1], sums))
        what = (
            BATCH if stage.batch else FROZEN,
            *((stage.act.name, stage.act.rule) if stage.act and rule else ("identity", "")),
        )

        def step(to: Recorder, _: Unit, band: Band, gy: Place, g: Place, *places: Place) -> None:
            *others, sums, dots = places
            at = band.n // groups.size * c * 8
            sums, dots = sums + at, dots + at if stage.batch else dots
            elementwise.down_call(to, band.span, c, work.dtype, what, (gy, g, *others, sums, dots))

        return step, (g, scale, x_hat, kept, packed, sums, dots)

    def sum_up(self, parameter: Parameter, sums: Array) -> None:
        """A gradient from the sums of the groups."""
        self.gradients[parameter] = self.work.new((sums.shape[1],))
        if not self.work.dry:
            self.gradients[parameter][:] = in_order(sums)

    def batch_norm(self, stage: Stage, gy: Array, number: int, *, own: bool) -> Array:
        """gx = gamma inv_std (gy - sum gy / m - x_hat sum (gy x_hat) / m), over gy or else over x_hat."""
        self.barrier(("back", number, "sums"))
        work, norm, (sums, dots) = self.work, stage.norm, self.totals
        gamma, beta = norm.parameters[:2]
        for parameter, groups, needed in ((gamma, dots, norm.needs[1]), (beta, sums, norm.needs[2])):
            if needed:
                self.sum_up(parameter, groups)
        if not norm.needs[0]:
            return gy

        def make() -> tuple[Array, ...]:
            totals = in_order(sums), in_order(dots)
            return backward_factors(self.values[gamma], self.kept(norm, "inv_std"), *totals, positions(stage.y))

        factors = work.numbers(3, PASSING * stage.y[3], make)
        x_hat = self.kept(norm, "x_hat")
        out = gy if own else x_hat

        def combine(to: Recorder, _: Unit, band: Band, gy: Place, x_hat: Place, out: Place, *factors: Place) -> None:
            combine_call(to, band.span, stage.y[3], work.dtype, (gy, x_hat, out, *factors))

        work.link(combine, stage.y, gy, x_hat, out, *factors)
        return out

    # A stage's convolution.

    def convolution(self, stage: Stage, g: Array, number: int) -> Array | None:
        """The gradients of its weight and of its input, the latter through what stands below."""
        below = self.program.stages[number - 1] if number else None
        trains, passes = stage.conv.needs[-1], stage.conv.needs[0]
        along = trains and calls.by_groups(stage)
        if stage.gated and stage.squeeze:
            self.barrier(("back", number, "norm"))
            return self.pass_on(stage, below, g, more=self.gated(stage, stage.squeeze, g, number))
        squeezed = stage.squeeze is not None
        last = trains and not along and passes and below is None and not squeezed  # the input is not written over
        if trains and not along and not last:
            self.barrier(("back", number, "norm"))
            self.weight(stage, g, number)
        if last and len(self.program.stages) == 1:  # a head lets go of its norm's map before its weight is packed
            self.barrier(("back", number, "norm"))
        gx = None
        if not passes:
            if along:
                self.weight_alone(stage, g)
        elif stage.squeeze and stage.squeeze.scale:
            gx = self.excite(stage, stage.squeeze, stage.squeeze.scale, below, g, number)
        else:
            gx = self.pass_on(stage, below, g)
        if not passes or last:
            self.barrier(("back", number, "input"))
        if last:
            self.weight(stage, g, number)
        return gx

    def filters(self, stage: Stage) -> Array:
        """The weight as the input's gradient reads it; as it is where a gate is yet to be multiplied in."""
        if stage.gated:
            return self.values[stage.conv.parameters[0]]
        filters = self.work.new((calls.filter_size(stage, self.work.dtype, back=True),))
        if not self.work.dry:
            calls.prepare(stage, self.values[stage.conv.parameters[0]], self.work.dtype, filters, back=True)
        parameter = stage.conv.parameters[0]  # read for the last time
        if parameter in self.gradients and self.take(parameter, self.gradients[parameter]):
            del self.gradients[parameter]
        return filters

    def weight(self, stage: Stage, g: Array, number: int) -> None:
        """The weight's gradient: tasks are pieces of it."""
        work, parameter = self.work, stage.conv.parameters[0]
        gw = self.gradients[parameter] = work.new(parameter.value.shape)

        def record(to: Recorder) -> None:
            pointwise.grad_weight_calls(to, stage.x, stage.y, work.dtype, (Place(2), Place(3), Place(4)))

        def scratch() -> tuple[int, int]:
            return pointwise.grad_weight_scratch(stage.x, stage.y[3], work.dtype)

        work.recorded(("back", number, "weight"), record, scratch, self.kept(stage.conv, "x"), g, gw)

    def chains(self, stage: Stage) -> Array:
        """Room for the gradient of the weight by each group; they are joined after the barrier."""
        work, parameter, shape = self.work, stage.conv.parameters[0], calls.chain_shape(stage)
        chains = work.new((len(Groups(stage.y)), *shape))

        def finish() -> None:
            gw, total = work.new(parameter.value.shape), work.new(shape, "float64")
            if not work.dry:
                calls.join_chains(stage, chains, total, gw)
            if not self.take(parameter, gw):
                self.gradients[parameter] = gw

        self._sums.append(finish)
        return chains

    def weight_alone(self, stage: Stage, g: Array) -> None:
        """The weight's gradient, group by group, where no gradient passes on."""

        def add(to: Recorder, _: Unit, band: Band, x: Place, g: Place, chains: Place, table: Place) -> None:
            read = calls.as_numbers(to, stage, band, self.work.dtype, x, table)
            calls.add_to_chain(to, stage, band, band.rows, self.work.dtype, read, g, chains)

        self.work.link(add, stage.y, self.kept(stage.conv, "x"), g, self.chains(stage), self.work.table(stage))

    def pass_on(self, stage: Stage, below: Stage | None, g: Array, more: Array = NOTHING) -> Array:
        """The input's gradient, band by band, and at once the slope and norm of the stage below.

        It goes where the input was kept for the weight, once that has read it; but not over the program's own input.
        Where the activation below reads its output there, the bands pass through scratch memory. `more` comes back
        through a gate.
        """
        work, dtype, c = self.work, self.work.dtype, stage.x[3]
        inside = below is not None or stage.squeeze is not None  # the input is not the program's own
        over = (inside and stage.conv.needs[-1]) or (below is not None and below.keeps_output)
        gx = self.kept_input(stage, below) if over else work.new(stage.x)
        step, arrays = self.down(below, gx) if below else (None, (gx,))
        through, itself = below is not None and below.keeps_output, calls.itemsize(dtype)
        gate = self.kept(stage.conv, "gate") if stage.gated else NOTHING
        ones = work.new((c,)) if stage.gated else NOTHING
        if stage.gated and not work.dry:
            ones[:] = 1
        along = stage.conv.needs[-1] and calls.by_groups(stage)
        chains, x = (self.chains(stage), self.kept(stage.conv, "x")) if along else (NOTHING, NOTHING)

        def make(
            to: Recorder, unit: Unit, band: Band, g: Place, filters: Place, gate: Place, ones: Place, more: Place,
            x: Place, chains: Place, gx: Place, *places: Place,
        ) -> None:  # fmt: skip
            panels, to_here = filters, gx
            if along:
                first, stop = (calls.rows_reached(stage, row) for row in band.rows)
                stop = stage.y[1] if band.rows[1] == stage.x[1] else stop
                calls.add_to_chain(to, stage, band, (first, stop), dtype, x, g, chains)
            if stage.gated:
                panels = to.scratch(self.panels_bytes)
                if band.rows[0] == 0:
                    calls.pack_gated(to, stage, dtype, filters, gate, band.n, panels, back=True)
            if through:
                room = to.scratch((band.span[1] - band.span[0]) * c * itself, self.panels_bytes)
                to_here = room + -band.span[0] * c * itself
            calls.convolve_back(to, stage, band, dtype, g, panels, to_here)
            if stage.gated:
                plus = more + band.n * c * itself
                gate_call(to, band.span, c, dtype, (to_here, to_here, ones, plus))
            if step:
                step(to, unit, band, to_here, gx, *places)

        reach = partial(calls.rows_reached, stage)
        work.link(make, stage.x, g, self.filters(stage), gate, ones, more, x, chains, *arrays, reach=reach)
        return gx

    def kept_input(self, stage: Stage, below: Stage | None) -> Array:
        """The convolution's input, where it was kept for its weight or for the slope below."""
        if stage.conv.needs[-1]:
            return self.kept(stage.conv, "x")
        assert below
        assert below.act
        return self.kept(below.act, "y")

    def residual(self, first: Stage, g: Array, gy: Array) -> None:
        """The gradient that went past the block."""
        work, c = self.work, first.x[3]

        def add(to: Recorder, _: Unit, band: Band, g: Place, gy: Place) -> None:
            at, count = band.span[0] * c * calls.itemsize(work.dtype), (band.span[1] - band.span[0]) * c
            to.call(maps.add(work.dtype), g + at, gy + at, g + at, count)

        work.link(add, first.x, g, gy)

    # Squeeze-and-excite.

    def excite(self, stage: Stage, se: Squeeze, scale: OpRecord, below: Stage | None, g: Array, number: int) -> Array:
        """Through the convolution, then through the gate and through the means it was made of."""
        work, c, area = self.work, stage.x[3], positions(stage.x[1:])
        g = self.pass_on(stage, None, g)
        dots, itself = work.new((work.count, 1, 1, c)), calls.itemsize(work.dtype)

        def multiply(to: Recorder, _: Unit, band: Band, g: Place, x: Place, dots: Place) -> None:
            if band.rows[1] == stage.x[1]:
                totals, n = to.scratch(c * 8), band.n
                dots_call(to, (n * area, (n + 1) * area), c, work.dtype, g, x, totals)
                to.call(channels.divide(work.dtype), totals, dots + n * c * itself, c, 1)

        work.link(multiply, stage.x, g, self.kept(scale, "x"), dots)
        self.barrier(("back", number, "gate"))
        more = self.through_means(se, dots, number)
        step, arrays = self.down(below, g) if below else (None, (g,))

        def spread(to: Recorder, unit: Unit, band: Band, gate: Place, more: Place, g: Place, *places: Place) -> None:
            own, plus = (at + band.n * c * itself for at in (gate, more))
            gate_call(to, band.span, c, work.dtype, (g, g, own, plus))
            if step:
                step(to, unit, band, g, g, *places)

        work.link(spread, stage.x, self.kept(scale, "gate"), more, *arrays)
        return g

    def through_means(self, se: Squeeze, slopes: Array, number: int) -> Array:
        """What every position gets back through the gate's layers, and through the means."""
        name = "back", number, "excite"
        slopes, weights, biases = excite_back(se, slopes, lambda r: self.records[r].saved, self.values, self.work, name)
        self.gradients |= weights
        for bias, sums in biases.items():
            self.sum_up(bias, sums)
        out = self.work.new(slopes.shape)
        if not self.work.dry:
            np.divide(slopes, positions(se.pool.shapes[0][1:]), out=out)
        return out

    def gated(self, stage: Stage, se: Squeeze, g: Array, number: int) -> Array:
        """The weight's and the gate's gradient of a convolution that takes the gate (see `ops.gated_conv`).

        Returns what every position gets back through the gate.
        """
        work, record, parameter = self.work, stage.conv, stage.conv.parameters[0]
        gw = self.gradients[parameter] = work.new(parameter.value.shape)
        of_gate = work.zeros((work.count, 1, 1, stage.x[3]), "float64")

        def record_all(to: Recorder) -> None:
            calls.grad_gated(to, stage, work.dtype, tuple(Place(i) for i in range(2, 8)))

        arrays = self.kept(record, "x"), g, gw, self.values[parameter], self.kept(record, "gate"), of_gate
        work.recorded(("back", number, "weight"), record_all, lambda: calls.gated_scratch(stage, work.dtype), *arrays)
        slopes = work.new((work.count, 1, 1, stage.x[3]))
        if not work.dry:
            slopes[:] = of_gate
        return self.through_means(se, slopes, number)
