"""Forward of a program that trains, as links from one map to the next (see `links`).

A stage's convolution is a link, its norm and activation are the next. A norm with batch statistics waits for all
samples, and then turns its input into x_hat, in place.
"""

from __future__ import annotations

from functools import partial

from minitl.arrays import Array, itemsize, positions, size
from minitl.bits import packed_shape
from minitl.fused import calls
from minitl.fused.excite import excite
from minitl.fused.links import Band, Links
from minitl.fused.plan import NO_SLOT, Plan, Slot
from minitl.fused.program import Program, Squeeze, Stage
from minitl.kernels.channels import ONE, SCALE, join_moments, means_call, moments_call
from minitl.kernels.fetch import goes_in_order
from minitl.kernels.groups import Groups
from minitl.kernels.tasks import Place, Recorder
from minitl.ops.activations.activation import tensor_of
from minitl.ops.norms.batch_norm import STATISTICS, settings
from minitl.records import Record


def forward(program: Program, *, keeps: bool) -> Plan:
    """The plan for x and the parameters: the program's output and, if it `keeps` them, the holdings of its records."""
    return program.planned(("forward", keeps), lambda: _Forward(program).all(keeps=keeps))


class _Forward(Links):
    def __init__(self, program: Program) -> None:
        first = program.stages[0]
        super().__init__(program, [(size(first.x),) if first.normalisation else first.x])  # pixels are no numbers
        self.kept: dict[tuple[Record, str], Slot] = {}
        self._merges: list[tuple[Slot, Slot, int]] = []

    def all(self, *, keeps: bool) -> Plan:
        """The whole plan."""
        (h,), stages = self.inputs, self.program.stages
        for stage in stages:
            self.enter(stage)
            if stage.squeeze:
                h = self.excite(stage, stage.squeeze, h)
            residual = self.inputs if self.program.residual and stage is stages[-1] else []
            h = self.stage(stage, h, residual)
        self.barrier()
        return self.finish([h, *(self.kept[x.record, x.kept.tensor] for x in self.program.holdings if keeps)])

    def barrier(self) -> None:
        """Wait for all units; then join the bytes of codes that two of them share."""
        super().barrier()
        for packed, edges, per_byte_area in self._merges:
            self.do(partial(self._merge, per_byte_area), packed, edges)
        self._merges.clear()

    def _merge(self, per_byte_area: int, packed: Array, edges: Array) -> None:
        for number in range(1, self.units):
            first = number * self.size * per_byte_area
            if first % 8:
                packed[first // 8] |= edges[number]

    def stage(self, stage: Stage, x: Slot, residual: list[Slot]) -> Slot:
        """Convolution, norm, activation, and the residual."""
        self.kept[stage.conv, "x"] = x
        raw = self.new(stage.y)
        self.convolution(stage, x, raw)
        if stage.batch:
            return self.finish_stage(stage, raw, self.statistics(stage, raw), residual)
        return self.finish_stage(stage, raw, (*calls.norm_factors(self.ready, stage.norm), NO_SLOT, NO_SLOT), residual)

    def convolution(self, stage: Stage, x: Slot, y: Slot) -> None:
        """The link that does it."""

        def plain(to: Recorder, band: Band, x: Place, filters: Place, y: Place, table: Place) -> None:
            calls.convolve(to, stage, band, calls.as_numbers(to, stage, band, x, table), filters, y)

        def gated(to: Recorder, band: Band, x: Place, weight: Place, y: Place, gate: Place) -> None:
            panels = to.scratch(calls.filter_size(stage.conv) * itemsize(self.dtype))
            if band.rows[0] == 0:
                calls.pack_gated(to, stage, weight, gate, band.n, panels, back=False)
            calls.convolve(to, stage, band, x, panels, y)

        if stage.gated:
            self.link(gated, stage.y, x, self.values[stage.conv.parameters[0]], y, self.kept[stage.conv, "gate"])
        else:
            filters = calls.filters(self.ready, stage.conv)
            self.link(plain, stage.y, x, filters, y, self.table(stage), reach=stage.rows_read)

    def statistics(self, stage: Stage, x: Slot) -> tuple[Slot, ...]:
        """A batch norm's weight and bias, and the mean and 1 / standard deviation of all samples."""
        norm, dtype, c, groups = stage.norm, self.dtype, stage.y[3], Groups(stage.y)
        means, squares = self.new((len(groups), c), "float64"), self.new((len(groups), c), "float64")

        def of_group(to: Recorder, band: Band, x: Place, mean: Place, square: Place) -> None:
            number = band.n // groups.size
            if band.span[1] == groups[number][1]:
                at = number * c * 8
                moments_call(to, groups[number], c, dtype, x, mean + at, square + at)

        self.link(of_group, stage.y, x, means, squares)
        self.barrier()
        gamma, beta, running_mean, running_var = (self.values[p] for p in norm.parameters)
        middle, inv_std = self.new((c,)), self.new((c,))

        def finish(to: Recorder, means: Place, squares: Place, *places: Place) -> None:
            join_moments(to, groups, c, dtype, means, squares)
            numbers = settings(norm.attrs, stage.y)
            STATISTICS.call(to, ONE, c, dtype, *places[:2], means, squares, *numbers, *places)

        self.ready.add(finish, means, squares, running_mean, running_var, middle, inv_std)
        self.kept[norm, "x_hat"], self.kept[norm, "inv_std"] = x, inv_std
        return gamma, beta, middle, inv_std

    def finish_stage(self, stage: Stage, raw: Slot, numbers: tuple[Slot, ...], residual: list[Slot]) -> Slot:
        """Norm (a batch norm's x_hat over its input) and activation band by band, and what the rule keeps.

        In place unless their input is kept.
        """
        act, c, dtype = stage.act, stage.y[3], self.dtype
        pre = packed = edges = NO_SLOT
        y = self.new(stage.y) if stage.batch or stage.keeps_input else raw
        if stage.keeps_input and act:
            pre = self.kept[act, "x"] = self.new(stage.y) if stage.batch else raw
        if act and (codes := stage.codes):
            packed = self.zeros(packed_shape(stage.y, codes.bits), "uint8")
            edges = self.zeros((self.units, c), "uint8")
            self.kept[act, tensor_of(codes)] = packed
            self._merges.append((packed, edges, positions(stage.y[1:]) * codes.bits))
        if act:
            self.kept[act, "y"] = y

        def up(to: Recorder, band: Band, x: Place, y: Place, edges: Place, *places: Place) -> None:
            calls.up(to, stage, band, self.size, (x, y, *places[:7]), edges)
            for added in places[7:]:
                calls.add(to, band, c, dtype, y, added, y)

        x_hat = raw if stage.batch else NO_SLOT
        in_order = goes_in_order(stage.what[0], keeps=stage.keeps_input)
        self.link(up, stage.y, raw, y, edges, *numbers, x_hat, pre, packed, *residual, in_order=in_order)
        return y

    def excite(self, stage: Stage, se: Squeeze, x: Slot) -> Slot:
        """The map times a gate for each sample and channel, unless the convolution after it takes the gate."""
        dtype, c, area = self.dtype, stage.x[3], positions(stage.x[1:])
        means, itself = self.new((self.count, 1, 1, c)), itemsize(dtype)

        def pool(to: Recorder, band: Band, x: Place, means: Place) -> None:
            n = band.n
            if band.rows[1] == stage.x[1]:
                means_call(to, (n * area, (n + 1) * area), c, dtype, x, to.scratch(c * 8), means + n * c * itself)

        self.link(pool, stage.x, x, means)
        self.barrier()
        gate, kept = excite(self, se, means)
        self.kept |= kept
        self.kept[se.scale or stage.conv, "gate"] = gate
        if se.scale is None:
            return x
        out = self.new(stage.x)
        self.kept[se.scale, "x"] = x

        def multiply(to: Recorder, band: Band, x: Place, gate: Place, out: Place) -> None:
            SCALE.call(to, band.span, c, dtype, x, gate + band.n * c * itself, out)

        self.link(multiply, stage.x, x, gate, out, in_order=True)
        return out
