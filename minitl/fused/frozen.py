"""Parts of the network in which nothing is trained and through which no gradient passes, depth first.

A sample goes through all stages before the next one starts, and nothing is kept: beside input and
output only one sample's maps are alive per thread. A wide map that feeds a depthwise convolution exists
in bands of rows only, so it stays in the cache; so does a stem's, where the first block has no expansion. (A
squeeze-and-excite needs the whole map first.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minitl.arrays import Array, positions, size
from minitl.fused import calls
from minitl.fused.calls import itemsize
from minitl.fused.program import Program, Squeeze, Stage, Values
from minitl.fused.work import PASSING, Band, Rows, Work
from minitl.kernels import elementwise, pointwise
from minitl.kernels.compile import Lazily
from minitl.kernels.elementwise import FROZEN, NONE
from minitl.kernels.tasks import Place, Recorder
from minitl.ops.norms.frozen_norm import scale_and_shift
from minitl.records import OpRecord

channels = Lazily("minitl.kernels.compiled.channels")

NEAR = 1 << 17  # bytes of a wide map's band
LINE = 16  # numbers: pieces begin at a cache line


def frozen_forward(programs: Sequence[Program], x: Array, values: Values, work: Work) -> Array:
    """The output of `programs`, one after another, for x."""
    constants = _Constants(programs, work.dtype)
    y, store = work.new((work.count, *programs[-1].stages[-1].y[1:])), work.new((constants.count,))

    def fill() -> tuple[Array, ...]:
        constants.fill(store, values)
        return ()

    work.numbers(0, PASSING * max(stage.y[3] for program in programs for stage in program.stages), fill)

    def record(to: Recorder, samples: int) -> None:
        for number in range(samples):
            to.task()
            _Sample(to, number, programs, constants, (Place(2), Place(3), Place(4))).run()

    def scratch() -> tuple[int, int]:
        one = Recorder()
        record(one, 1)
        return one.size[0], work.count

    work.recorded(("frozen", len(programs)), lambda to: record(to, work.count), scratch, x, y, store)
    return y


def constants_size(programs: Sequence[Program], dtype: str) -> int:
    """Numbers that the weights of these programs take, made ready for the kernels."""
    return _Constants(programs, dtype).count


class _Constants:
    """Where in one array the filters, norms and gates of all stages stand."""

    def __init__(self, programs: Sequence[Program], dtype: str) -> None:
        self.dtype, self.count = dtype, 0
        self.filters: dict[Stage, int] = {}
        self.norms: dict[Stage, tuple[int, int]] = {}
        self.dense: dict[int, tuple[int, int]] = {}  # weight and bias of a squeeze's convolutions, by record
        self._records = [record for program in programs for record in program.records]
        self._stages = [stage for program in programs for stage in program.stages]
        for stage in self._stages:
            self.filters[stage] = self._take(calls.filter_size(stage, dtype))
            self.norms[stage] = self._take(stage.y[3]), self._take(stage.y[3])
            for conv in _convolutions(stage.squeeze):
                weight = conv.shapes[1]
                packed = pointwise.packed_size(weight[:2], dtype, True)
                self.dense[id(conv)] = self._take(packed), self._take(weight[0])

    def _take(self, count: int) -> int:
        start = self.count
        self.count += -(-count // LINE) * LINE
        return start

    def fill(self, store: Array, values: Values) -> None:
        """Write all of them."""
        for stage in self._stages:
            weight = values[stage.conv.parameters[0]]
            start = self.filters[stage]
            calls.prepare(stage, weight, self.dtype, store[start : start + calls.filter_size(stage, self.dtype)])
            norms = scale_and_shift([values[p] for p in stage.norm.parameters], stage.norm.attrs["eps"])
            for at, numbers in zip(self.norms[stage], norms, strict=True):
                store[at : at + len(numbers)] = numbers
            for conv in _convolutions(stage.squeeze):
                weight, bias = (values[p] for p in conv.parameters)
                at, at_bias = self.dense[id(conv)]
                packed = pointwise.packed_size(weight.shape[:2], self.dtype, True)
                pointwise.pack_table(weight.shape[:2], self.dtype, True).run(weight, store[at : at + packed])
                store[at_bias : at_bias + len(bias)] = bias


class _Block(NamedTuple):
    """Stages that run band by band: [what widens,] a depthwise one, and one that projects; or a single one."""

    stages: tuple[Stage, ...]
    residual: OpRecord | None
    passes_ring: bool = False  # the residual is of what widens, not of the input


def _blocks(programs: Sequence[Program]) -> list[_Block]:
    """The programs' stages; a stem widens the first block, where that has nothing to do so."""
    found = [_Block(program.stages, program.residual) for program in programs]
    if len(found) > 1 and [len(block.stages) for block in found[:2]] == [1, 2]:
        stem, first = found[:2]
        if not (first.residual and first.stages[-1].squeeze):  # which would need the stem's whole map again
            found[:2] = [_Block((*stem.stages, *first.stages), first.residual, passes_ring=True)]
    return found


def _convolutions(squeeze: Squeeze | None) -> tuple[OpRecord, ...]:
    return (squeeze.fc1, squeeze.fc2) if squeeze else ()


class _Sample:
    """One sample's way through: records its calls."""

    def __init__(
        self, to: Recorder, number: int, programs: Sequence[Program], constants: _Constants, places: Sequence[Place]
    ) -> None:
        self.to, self.number, self.constants, self.places = to, number, constants, places
        self.dtype, self.bytes = constants.dtype, itemsize(constants.dtype)
        self.blocks = _blocks(programs)
        stages = [stage for block in self.blocks for stage in block.stages]
        outputs = [size(block.stages[-1].y[1:]) for block in self.blocks[:-1]]  # the last one's is the result
        even, odd = max(outputs[::2], default=0), max(outputs[1::2], default=0)
        pairs = [b.stages[-2:] for b in self.blocks if len(b.stages) > 1]  # a depthwise stage and the one that projects
        ring = max((_most_rows(s, self.bytes)[1] * s.x[2] * s.x[3] for s, _ in pairs), default=0)
        wide = max(
            (size(s.y[1:]) if last.squeeze else _most_rows(s, self.bytes)[0] * s.y[2] * s.y[3] for s, last in pairs),
            default=0,
        )
        vectors = 6 * max(max(s.x[3], s.y[3]) for s in stages)
        at = 0
        self.room = []
        for count in (even, odd, ring, wide, vectors):
            self.room.append(to.scratch(count * self.bytes, at))
            at += -(-count * self.bytes // 64) * 64

    def run(self) -> None:
        """All programs, from the input to the output."""
        x, y, self.store = self.places
        x += self.number * size(self.blocks[0].stages[0].x[1:]) * self.bytes
        for i, block in enumerate(self.blocks):
            last = block.stages[-1]
            out = self.room[i % 2]
            if block is self.blocks[-1]:
                out = y + self.number * size(last.y[1:]) * self.bytes
            self.block(block, x, out)
            x = out

    def block(self, block: _Block, x: Place, out: Place) -> None:
        """A block: [expand,] depthwise, project; or a single stage: a stem, a head."""
        *inner, last = block.stages
        first, filtered = (inner[0], inner[-1]) if inner else (last, last)
        self.ring = (0, 0)
        for rows in _bands(filtered, self.bytes):
            source = self.widen(first, filtered, rows, x) if len(inner) == 2 else x
            if not inner:
                self.stage(last, rows, source, out)
            else:
                row = filtered.y[2] * filtered.y[3] * self.bytes
                middle = self.room[3] if last.squeeze else self.room[3] + -rows[0] * row
                self.stage(filtered, rows, source, middle)
                if not last.squeeze:
                    self.project(block, last, rows, (middle, out, source if block.passes_ring else x))
        if last.squeeze:
            self.excite(last, last.squeeze, self.room[3])
            for rows in _bands(last, self.bytes):
                self.project(block, last, rows, (self.room[3], out, x))

    def project(self, block: _Block, stage: Stage, rows: Rows, maps: tuple[Place, Place, Place]) -> None:
        """The last stage, and the residual."""
        middle, out, x = maps
        self.stage(stage, rows, middle, out)
        if block.residual:
            row = stage.y[2] * stage.y[3]
            at, count = rows[0] * row * self.bytes, (rows[1] - rows[0]) * row
            self.to.call(channels.add(self.dtype), out + at, x + at, out + at, count)

    def widen(self, stage: Stage, reader: Stage, rows: Rows, x: Place) -> Place:
        """Make the rows that `reader` needs for its own `rows`; those made before move to the front."""
        window, row = reader.window, stage.y[2] * stage.y[3]
        first = max(0, rows[0] * window.s - window.top)
        stop = min(window.height, (rows[1] - 1) * window.s - window.top + window.k)
        made = max(first, self.ring[1])
        if made > first:
            source = self.room[2] + (first - self.ring[0]) * row * self.bytes
            self.to.call(channels.move(self.dtype), source, self.room[2], (made - first) * row)
        self.ring = (first, stop)
        wide = self.room[2] + -first * row * self.bytes
        self.stage(stage, (made, stop), x, wide)
        return wide

    def stage(self, stage: Stage, rows: Rows, x: Place, y: Place) -> None:
        """Convolution, norm and activation of some rows."""
        span = (rows[0] * stage.y[2], rows[1] * stage.y[2])
        if rows[0] < rows[1]:
            filters = self.store + self.constants.filters[stage] * self.bytes
            calls.convolve(self.to, stage, Band(0, rows, span), self.dtype, x, filters, y)
            scale, shift = (self.store + at * self.bytes for at in self.constants.norms[stage])
            self.elementwise(span, stage.y[3], (FROZEN, stage.names[0], ""), y, (scale, shift))

    def elementwise(
        self,
        span: Rows,
        count: int,
        what: tuple[int, str, str],
        x: Place,
        norm: tuple[Place | int, Place | int] = (0, 0),
    ) -> None:
        """A pass in place."""
        elementwise.up_call(self.to, span, count, self.dtype, what, (x, x, *norm, 0, 0, 0, 0, 0))

    def excite(self, stage: Stage, squeeze: Squeeze, x: Place) -> None:
        """Make the gate of a whole map, and multiply the map by it."""
        count, area, step = stage.x[3], positions(stage.x[1:]), stage.x[3] * 8
        hidden = squeeze.fc1.shapes[1][0]
        totals, means = self.room[4], self.room[4] + step
        inner = means + count * self.bytes
        gate = means  # the means have been read by then
        self.to.call(channels.sums(self.dtype), x, 0, area, count, totals)
        self.to.call(channels.divide(self.dtype), totals, means, count, area)
        self.dense(squeeze.fc1, (count, hidden), means, inner)
        self.elementwise((0, 1), hidden, (NONE, squeeze.act.name, ""), inner)
        self.dense(squeeze.fc2, (hidden, count), inner, gate)
        self.elementwise((0, 1), count, (NONE, squeeze.gate.name, ""), gate)
        self.to.call(channels.gate(self.dtype, False), x, x, 0, area, count, gate, gate)

    def dense(self, conv: OpRecord, sizes: tuple[int, int], x: Place, y: Place) -> None:
        """A convolution of one position, with its bias."""
        weight, bias = (self.store + at * self.bytes for at in self.constants.dense[id(conv)])
        pointwise.product_calls(self.to, (0, 1), *sizes, self.dtype, (x, weight, y), bias)


def _most_rows(stage: Stage, itself: int) -> tuple[int, int]:
    """How many rows a band of the stage's output has at most, and how many of its input it reads."""
    window = stage.window
    row = stage.x[2] * stage.x[3] * itself
    rows = max(1, min(stage.y[1], (NEAR // row - window.k) // window.s + 1))
    return rows, min(stage.x[1], (rows - 1) * window.s + window.k)


def _bands(stage: Stage, itself: int) -> Iterator[Rows]:
    """The rows of a stage's output, in bands."""
    step = _most_rows(stage, itself)[0]
    return ((r, min(r + step, stage.y[1])) for r in range(0, stage.y[1], step))
