"""Forward of a program that trains, as links from one map to the next (see `work`).

A stage's convolution is a link, its norm and activation are the next. A norm with batch statistics waits for all
samples, and then turns its input into x_hat, in place. What nobody keeps lives until its barrier is over.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from minitl.arrays import Array, positions
from minitl.bits import packed_shape
from minitl.fused import calls
from minitl.fused.excite import KeptArrays, excite
from minitl.fused.frozen import frozen_forward
from minitl.fused.program import Program, Squeeze, Stage, Values
from minitl.fused.work import PASSING, Band, Unit, Work
from minitl.kernels.channels import gate_call, join_moments, moments_call, sums_call
from minitl.kernels.compile import Lazily
from minitl.kernels.elementwise import BATCH, FROZEN
from minitl.kernels.groups import Groups
from minitl.kernels.tasks import NOTHING, Place, Recorder
from minitl.ops.activations.activation import tensor_of
from minitl.ops.norms.batch_norm import inverse_deviation, move_statistics
from minitl.ops.norms.frozen_norm import scale_and_shift

channels, maps = Lazily("minitl.kernels.compiled.channels"), Lazily("minitl.kernels.compiled.maps")


def forward(program: Program, x: Array, values: Values, work: Work) -> tuple[Array, KeptArrays]:
    """The program's output for x, and all that its records may keep."""
    if not program.trains:
        return frozen_forward([program], x, values, work), {}
    return _Forward(program, values, work)(x)


def norm_factors(stage: Stage, values: Values, work: Work) -> tuple[Array, ...]:
    """The scale and the shift of a frozen norm."""

    def make() -> tuple[Array, ...]:
        factors = scale_and_shift([values[p] for p in stage.norm.parameters], stage.norm.attrs["eps"])
        return tuple(factor.astype(work.dtype) for factor in factors)

    return work.numbers(2, PASSING * stage.y[3], make)


class _Forward:
    def __init__(self, program: Program, values: Values, work: Work) -> None:
        self.program, self.values, self.work = program, values, work
        self.kept: KeptArrays = {}
        self._merges: list[tuple[Array, Array, int]] = []

    def __call__(self, x: Array) -> tuple[Array, KeptArrays]:
        h, stages = x, self.program.stages
        for stage in stages:
            self.work.enter(stage)
            if stage.squeeze:
                h = self.excite(stage, stage.squeeze, h)
            residual = x if self.program.residual and stage is stages[-1] else None
            h = self.stage(stage, h, residual)
        self.barrier(("end",))
        return h, self.kept

    def barrier(self, name: tuple[object, ...]) -> None:
        """Wait for all units; then join the bytes of codes that two of them share."""
        self.work.barrier(name)
        for packed, edges, per_byte_area in self._merges:
            for number in range(1, self.work.units if not self.work.dry else 0):
                first = self.work.unit(number).first * per_byte_area
                if first % 8:
                    packed[first // 8] |= edges[number]
        self._merges.clear()

    def stage(self, stage: Stage, x: Array, residual: Array | None) -> Array:
        """Convolution, norm, activation, and the residual."""
        self.kept[stage.conv, "x"] = x
        raw = self.work.new(stage.y)
        self.convolution(stage, x, raw)
        if not stage.batch:
            scale, shift = norm_factors(stage, self.values, self.work)
            return self.finish(stage, FROZEN, raw, (scale, shift, NOTHING, NOTHING), residual)
        return self.batch_norm(stage, raw, residual)

    def filters(self, stage: Stage) -> Array:
        """The weight as the convolution reads it; as it is where a gate is yet to be multiplied in."""
        weight = self.values[stage.conv.parameters[0]]
        if stage.gated:
            return weight
        filters = self.work.new((calls.filter_size(stage, self.work.dtype),))
        if not self.work.dry:
            calls.prepare(stage, weight, self.work.dtype, filters)
        return filters

    def convolution(self, stage: Stage, x: Array, y: Array) -> None:
        """The link that does it."""
        dtype, filters = self.work.dtype, self.filters(stage)

        def plain(to: Recorder, unit: Unit, band: Band, x: Place, filters: Place, y: Place, table: Place) -> None:
            calls.convolve(to, stage, band, dtype, calls.as_numbers(to, stage, band, dtype, x, table), filters, y)

        def gated(to: Recorder, unit: Unit, band: Band, x: Place, weight: Place, y: Place, gate: Place) -> None:
            panels = to.scratch(calls.filter_size(stage, dtype) * calls.itemsize(dtype))
            if band.rows[0] == 0:
                calls.pack_gated(to, stage, dtype, weight, gate, band.n, panels, back=False)
            calls.convolve(to, stage, band, dtype, x, panels, y)

        if stage.gated:
            self.work.link(gated, stage.y, x, filters, y, self.kept[stage.conv, "gate"])
        else:
            self.work.link(plain, stage.y, x, filters, y, self.work.table(stage), reach=partial(calls.rows_read, stage))

    def batch_norm(self, stage: Stage, x: Array, residual: Array | None) -> Array:
        """Moments of all samples, then x_hat over x, and weight x_hat + bias of it."""
        norm, work, c = stage.norm, self.work, stage.y[3]
        groups = Groups(stage.y)
        means, squares = work.new((len(groups), c), "float64"), work.new((len(groups), c), "float64")

        def of_group(to: Recorder, unit: Unit, band: Band, x: Place, mean: Place, square: Place) -> None:
            number = band.n // groups.size
            if band.span[1] == groups[number][1]:
                at = number * c * 8
                moments_call(to, groups[number], c, work.dtype, x, mean + at, square + at)

        work.link(of_group, stage.y, x, means, squares)
        self.barrier(("moments", self.program.stages.index(stage)))
        gamma, beta, running_mean, running_var = (self.values[p] for p in stage.norm.parameters)

        def make() -> tuple[Array, ...]:
            mean, square = join_moments([last - first for first, last in groups], means, squares)
            move_statistics(running_mean, running_var, mean, square, positions(stage.y), norm.attrs)
            return mean.astype(work.dtype), inverse_deviation(square, stage.y, norm.attrs, np.dtype(work.dtype))

        middle, inv_std = work.numbers(2, PASSING * c, make)
        self.kept[norm, "x_hat"], self.kept[norm, "inv_std"] = x, inv_std
        return self.finish(stage, BATCH, x, (gamma, beta, middle, inv_std), residual)

    def finish(
        self, stage: Stage, norm: int, raw: Array, numbers: tuple[Array, Array, Array, Array], residual: Array | None
    ) -> Array:
        """Norm and activation band by band, and what the rule keeps; in place unless their input is kept."""
        work, act, c = self.work, stage.act, stage.y[3]
        pre = packed = edges = NOTHING
        y = work.new(stage.y) if norm == BATCH or stage.keeps_input else raw
        if stage.keeps_input and act:
            pre = raw if norm == FROZEN else work.new(stage.y)
            self.kept[act, "x"] = pre
        if act and (codes := stage.codes):
            packed = work.zeros(packed_shape(stage.y, codes.bits), "uint8")
            edges = work.zeros((work.units, c), "uint8")
            self.kept[act, tensor_of(codes)] = packed
            self._merges.append((packed, edges, positions(stage.y[1:]) * codes.bits))
        if act:
            self.kept[act, "y"] = y
        extra = (residual,) if residual is not None else ()

        def up(to: Recorder, unit: Unit, band: Band, x: Place, y: Place, edges: Place, *places: Place) -> None:
            calls.up(to, stage, band, unit, norm, work.dtype, (x, y, *places[:7]), edges)
            if extra:
                at, count = band.span[0] * c * calls.itemsize(work.dtype), (band.span[1] - band.span[0]) * c
                to.call(maps.add(work.dtype), y + at, places[7] + at, y + at, count)

        x_hat = raw if norm == BATCH else NOTHING
        work.link(up, stage.y, raw, y, edges, *numbers, x_hat, pre, packed, *extra)
        return y

    def excite(self, stage: Stage, se: Squeeze, x: Array) -> Array:
        """The map times a gate for each sample and channel, unless the convolution after it takes the gate."""
        work, c, area = self.work, stage.x[3], positions(stage.x[1:])
        means = work.new((work.count, 1, 1, c))
        itself = calls.itemsize(work.dtype)

        def pool(to: Recorder, unit: Unit, band: Band, x: Place, means: Place) -> None:
            n = band.n
            if band.rows[1] == stage.x[1]:
                totals = to.scratch(c * 8)
                sums_call(to, (n * area, (n + 1) * area), c, work.dtype, x, totals)
                to.call(channels.divide(work.dtype), totals, means + n * c * itself, c, area)

        work.link(pool, stage.x, x, means)
        self.barrier(("squeeze", self.program.stages.index(stage)))
        gate, kept = excite(se, means, self.values, work, ("excite", self.program.stages.index(stage)))
        self.kept |= kept
        self.kept[se.scale or stage.conv, "gate"] = gate
        if se.scale is None:
            return x
        out = work.new(stage.x)
        self.kept[se.scale, "x"] = x

        def multiply(to: Recorder, unit: Unit, band: Band, x: Place, gate: Place, out: Place) -> None:
            own = gate + band.n * c * itself
            gate_call(to, band.span, c, work.dtype, (x, out, own))

        work.link(multiply, stage.x, x, gate, out)
        return out
