"""Parts of the network in which nothing is trained and through which no gradient passes, depth first.

A sample goes through all stages before the next one starts, and nothing is kept: beside input and
output only one sample's maps are alive per thread. Of a large map only a few rows exist at a time: those that the
maps after it have yet to read, in a ring that moves down the map. Small ones are whole, and so is what a
squeeze-and-excite takes the means of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, positions, size
from minitl.fused import calls
from minitl.fused.calls import itemsize
from minitl.fused.program import Program, Squeeze, Stage, Values
from minitl.fused.work import PASSING, Band, Rows, Work
from minitl.kernels import elementwise, pointwise
from minitl.kernels.channels import gate_call, sums_call
from minitl.kernels.compile import Lazily
from minitl.kernels.elementwise import FROZEN, NONE
from minitl.kernels.pointwise import End
from minitl.kernels.tasks import Place, Recorder
from minitl.ops.norms.frozen_norm import scale_and_shift
from minitl.records import OpRecord

channels, maps = Lazily("minitl.kernels.compiled.channels"), Lazily("minitl.kernels.compiled.maps")

NEAR = 1 << 17  # bytes of a wide map's rows
WHOLE = 1 << 19  # bytes of a block's output that is not cut into rows
LINE = 16  # numbers: pieces begin at a cache line
LARGE = 1 << 18  # numbers of a weight that is read as it is
FEW = 64  # positions of a map that is turned, rather than its weight (see `pointwise.turned_calls`)

X, Y, STORE, TABLE, WEIGHTS = 2, 3, 4, 5, 6  # numbers of the arrays


def frozen_forward(programs: Sequence[Program], x: Array, values: Values, work: Work) -> Array:
    """The output of `programs`, one after another, for x."""
    key = tuple(programs), work.dtype
    way = programs[0].ways[key] = programs[0].ways.get(key) or _Way(programs, work.dtype)
    y, store = work.new((work.count, *way.output)), work.new((way.constants.count,))

    def fill() -> tuple[Array, ...]:
        way.constants.fill(store, values)
        return ()

    work.numbers(0, PASSING * sum(link.stage.y[3] for link in way.links), fill)

    def record(to: Recorder, samples: int) -> None:
        for number in range(samples):
            to.task()
            _Sample(to, number, way).run()

    def scratch() -> tuple[int, int]:
        one = Recorder()
        record(one, 1)
        return one.size[0], work.count

    table = work.table(way.links[0].stage)
    weights = (values[stage.conv.parameters[0]] for stage in way.constants.as_they_are)
    work.recorded(("frozen", way), lambda to: record(to, work.count), scratch, x, y, store, table, *weights)
    return y


def weights_size(program: Program, dtype: str) -> int:
    """Numbers that the program's weights take, as the kernels read them."""
    if dtype not in program.ways:
        constants = _Constants(program.stages, dtype)
        program.ways[dtype] = constants.count + sum(size(stage.conv.shapes[1]) for stage in constants.as_they_are)
    return int(program.ways[dtype])


def _turned(stage: Stage) -> bool:
    """Whether the map is so small, and the weight so large, that a sample's map is made ready instead of the weight."""
    return stage.pointwise and positions(stage.y[1:]) <= FEW and size(stage.conv.shapes[1]) > LARGE


class _Constants:
    """Where in one array the filters, norms and gates of all stages stand."""

    def __init__(self, stages: Sequence[Stage], dtype: str) -> None:
        self.dtype, self.count = dtype, 0
        self.filters: dict[Stage, int] = {}
        self.norms: dict[Stage, tuple[int, int]] = {}  # scale and shift
        self.dense: dict[int, tuple[int, int]] = {}  # weight and bias of a squeeze's convolutions, by record
        self.as_they_are = [stage for stage in stages if _turned(stage)]
        self._stages = stages
        for stage in stages:
            if not _turned(stage):
                self.filters[stage] = self._take(calls.filter_size(stage, dtype))
            for conv in _convolutions(stage.squeeze):
                weight = conv.shapes[1]
                packed = pointwise.packed_size(weight[:2], dtype, True)
                self.dense[id(conv)] = self._take(packed), self._take(weight[0])

        ends = list(accumulate(stage.y[3] for stage in stages))
        scales, shifts = self._take(ends[-1]), self._take(ends[-1])
        self._scales, self._shifts = slice(scales, scales + ends[-1]), slice(shifts, shifts + ends[-1])
        self._eps = np.concatenate([np.full(stage.y[3], stage.norm.attrs["eps"]) for stage in stages])
        for stage, start in zip(stages, [0, *ends], strict=False):
            self.norms[stage] = scales + start, shifts + start

    def _take(self, count: int) -> int:
        start = self.count
        self.count += -(-count // LINE) * LINE
        return start

    def fill(self, store: Array, values: Values) -> None:
        """Write all of them."""
        for stage, start in self.filters.items():
            out = store[start : start + calls.filter_size(stage, self.dtype)]
            calls.prepare(stage, values[stage.conv.parameters[0]], self.dtype, out)
        parameters = zip(*(stage.norm.parameters for stage in self._stages), strict=True)
        norms = [np.concatenate([values[p] for p in same]) for same in parameters]  # each kind's of all stages
        store[self._scales], store[self._shifts] = scale_and_shift(norms, self._eps)
        for stage in self._stages:
            for conv in _convolutions(stage.squeeze):
                weight, bias = (values[p] for p in conv.parameters)
                at, at_bias = self.dense[id(conv)]
                packed = pointwise.packed_size(weight.shape[:2], self.dtype, True)
                pointwise.pack_table(weight.shape[:2], self.dtype, True).run(weight, store[at : at + packed])
                store[at_bias : at_bias + len(bias)] = bias


def _convolutions(squeeze: Squeeze | None) -> tuple[OpRecord, ...]:
    return (squeeze.fc1, squeeze.fc2) if squeeze else ()


class _Link(NamedTuple):
    """Makes map i + 1 from map i, where it is number i; then adds map number `adds`, if any.

    `ends` a block; its map stays `whole`, or a few rows of it exist at a time.
    """

    stage: Stage
    adds: int | None
    ends: bool
    whole: bool


def _links(programs: Sequence[Program], dtype: str) -> Iterator[_Link]:
    """The programs' stages."""
    stages = [stage for program in programs for stage in program.stages]
    number = 0
    for program, following in zip(programs, (*programs[1:], None), strict=True):
        again = following and following.residual and following.stages[-1].squeeze  # added when the gate is there
        first, number = number, number + len(program.stages)
        for i in range(first, number):
            ends, after = i == number - 1, stages[i + 1] if i + 1 < len(stages) else None
            whole = after is None or bool(after.squeeze) or _turned(stages[i]) or _turned(after)
            if ends and not whole:
                whole = bool(again) or size(stages[i].y[1:]) * itemsize(dtype) <= WHOLE
            yield _Link(stages[i], first if ends and program.residual else None, ends, whole)


class _Step(NamedTuple):
    """Rows of a map that are made at a time; of those before, the ones from `front` on stay.

    `before` is the row that the map's room began with until then.
    """

    link: int
    rows: Rows
    front: int
    before: int


class _Way:
    """What a sample goes through: links in chains, each up to a whole map; and where in the scratch memory maps lie."""

    def __init__(self, programs: Sequence[Program], dtype: str) -> None:
        self.dtype, self.bytes, self.pool = dtype, itemsize(dtype), programs[-1].pool
        self.links = tuple(_links(programs, dtype))
        self.input_bytes = 1 if self.links[0].stage.normalisation else self.bytes
        self.constants = _Constants([link.stage for link in self.links], dtype)
        ends = [i for i, link in enumerate(self.links) if link.whole]
        self.chains = [_steps(self.links, a + 1, b, self.bytes) for a, b in zip([-1, *ends], ends, strict=False)]
        self.rooms = dict(self._rooms())

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of a sample's output."""
        return self.pool.cost.output[1:] if self.pool else self.links[-1].stage.y[1:]

    def shape(self, number: int) -> tuple[int, int, int]:
        """Height, width and channels of a map."""
        link = self.links[max(number - 1, 0)]
        _, h, w, c = link.stage.y if number else link.stage.x
        return h, w, c

    def _rooms(self) -> Iterator[tuple[object, tuple[int, int]]]:
        """Offset and bytes, in a thread's memory: of maps by their numbers, and of what else there is, by name."""
        last, at = len(self.links), 0
        outputs = [i + 1 for i, link in enumerate(self.links) if link.whole and link.ends]
        wide = [i + 1 for i, link in enumerate(self.links) if link.whole and not link.ends]
        for numbers in (outputs[::2], outputs[1::2], wide[::2], wide[1::2]):  # a chain reads one and writes the other
            sizes = {n: size(self.shape(n)) * self.bytes for n in numbers if n < last or self.pool}
            yield from ((number, (at, count)) for number, count in sizes.items())
            at += _aligned(max(sizes.values(), default=0))
        chains = [self._rings(chain) for chain in self.chains]
        for rings in chains:
            start = at
            for number, count in rings.items():
                yield number, (start, count)
                start += _aligned(count)
        at += max(sum(map(_aligned, rings.values())) for rings in chains)
        turned = (stage.conv.shapes[1][:2] for stage in self.constants.as_they_are)
        areas = (positions(stage.y[1:]) for stage in self.constants.as_they_are)
        room = max((pointwise.turned_size(*both, self.dtype) for both in zip(turned, areas, strict=True)), default=0)
        yield "turned", (at, room * self.bytes)
        at += _aligned(room * self.bytes)
        vectors = max((self._vectors(link.stage) for link in self.links), default=0)
        vectors = max(vectors, 8 * self.shape(last)[2] if self.pool else 0)
        yield "vectors", (at, vectors)
        yield "numbers", (at + _aligned(vectors), 0)  # of images in pixels, as many rows as are read at a time

    def _rings(self, chain: Sequence[_Step]) -> dict[int, int]:
        """Bytes of the maps of which a chain has some rows at a time."""
        rings = dict[int, int]()
        for step in chain:
            if not self.links[step.link].whole:
                number, row = step.link + 1, size(self.shape(step.link + 1)[1:]) * self.bytes
                rings[number] = max(rings.get(number, 0), (step.rows[1] - step.front) * row)
        return rings

    def _vectors(self, stage: Stage) -> int:
        """Bytes of a squeeze-and-excite's totals in float64, means and hidden numbers."""
        return (8 + self.bytes) * stage.x[3] + self.bytes * stage.squeeze.fc1.shapes[1][0] if stage.squeeze else 0


def _aligned(count: int) -> int:
    return -(-count // 64) * 64


def _steps(links: Sequence[_Link], first: int, last: int, itself: int) -> list[_Step]:
    """How links `first` to `last` make the last one's map, a few rows at a time, each asking the one before it."""
    steps, made, fronts = list[_Step](), [0] * (last + 1), [0] * (last + 1)

    def oldest(number: int) -> int:
        """The first row of this link's map that is still to be read."""
        window = links[number + 1].stage.window
        rows = [made[number + 1] * window.s - window.top, made[number]]
        rows += [made[i] for i in range(number + 1, last + 1) if links[i].adds == number + 1]
        return max(0, min(rows))

    def make(number: int, stop: int) -> None:
        if made[number] < stop:
            stage = links[number].stage
            if number > first:
                make(number - 1, min(calls.rows_read(stage, stop), stage.x[1]))
            front = oldest(number) if number < last else 0
            steps.append(_Step(number, (made[number], stop), front, fronts[number]))
            made[number], fronts[number] = stop, front

    stages = [link.stage for link in links[first : last + 1]]
    height = stages[-1].y[1]
    by = height if _turned(stages[0]) else max(1, min(_rows_near(s, itself) * height // s.y[1] for s in stages))
    for stop in range(by, height + by, by):
        make(last, min(stop, height))
    return steps


def _rows_near(stage: Stage, itself: int) -> int:
    """How many rows of its output a stage makes from rows that stay in the cache."""
    row = stage.x[2] * stage.x[3] * itself
    near = NEAR // 8 if stage.normalisation else NEAR  # rows of pixels are made numbers anew for every step
    return max(1, min(stage.y[1], (near // row - stage.window.k) // stage.window.s + 1))


class _Sample:
    """One sample's way through: records its calls."""

    def __init__(self, to: Recorder, number: int, way: _Way) -> None:
        self.to, self.number, self.way = to, number, way
        self.dtype, self.bytes, self.last = way.dtype, way.bytes, len(way.links)
        self.fronts = [0] * (self.last + 1)  # the rows that the maps' rooms begin with
        self.rooms = {what: to.scratch(count, at) for what, (at, count) in way.rooms.items()}

    def run(self) -> None:
        """All chains, from the input to the output."""
        for chain in self.way.chains:
            stage = self.way.links[chain[0].link].stage
            if stage.squeeze:
                self.excite(stage, stage.squeeze, self.at(chain[0].link))
            for step in chain:
                self.make(step)
        if self.way.pool:
            h, w, c = self.way.shape(self.last)
            totals, means = self.rooms["vectors"], Place(Y) + self.number * c * self.bytes
            sums_call(self.to, (0, h * w), c, self.dtype, self.at(self.last), totals)
            self.to.call(channels.divide(self.dtype), totals, means, c, h * w)

    def at(self, number: int, row: int = 0) -> Place:
        """Where that row of a map is."""
        _, w, c = shape = self.way.shape(number)
        if number in self.rooms:
            return self.rooms[number] + (row - self.fronts[number]) * w * c * self.bytes
        place, itself = (Place(Y), self.bytes) if number else (Place(X), self.way.input_bytes)
        return place + (self.number * size(shape) + row * w * c) * itself

    def make(self, step: _Step) -> None:
        """Some rows of a map; those made before that are still to be read move to the front."""
        link, number, (start, stop) = self.way.links[step.link], step.link + 1, step.rows
        _, w, c = self.way.shape(number)
        if step.before < step.front < start:
            kept, front = self.at(number, step.front), self.at(number, step.before)
            self.to.call(channels.move(self.dtype), kept, front, (start - step.front) * w * c)
        self.fronts[number] = step.front
        self.stage(link.stage, step.rows, self.at(step.link), self.at(number))
        if link.adds is not None:
            y, added = self.at(number, start), self.at(link.adds, start)
            self.to.call(maps.add(self.dtype), y, added, y, (stop - start) * w * c)

    def stage(self, stage: Stage, rows: Rows, x: Place, y: Place) -> None:
        """Convolution, norm and activation of some rows."""
        store, constants = Place(STORE), self.way.constants
        span = (rows[0] * stage.y[2], rows[1] * stage.y[2])
        scale, shift = (store + at * self.bytes for at in constants.norms[stage])
        if stage in constants.filters:
            at = self.rooms["numbers"].offset
            x = calls.as_numbers(self.to, stage, Band(0, rows, span), self.dtype, x, Place(TABLE), at)
            filters, end = store + constants.filters[stage] * self.bytes, End(stage.names[0], scale, shift)
            calls.convolve(self.to, stage, Band(0, rows, span), self.dtype, x, filters, y, end)
        else:
            weight = Place(WEIGHTS + constants.as_they_are.index(stage))
            shape = stage.conv.shapes[1][:2]
            pointwise.turned_calls(self.to, shape, span[1], self.dtype, (x, weight, y), self.rooms["turned"])
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
        count, area, hidden = stage.x[3], positions(stage.x[1:]), squeeze.fc1.shapes[1][0]
        totals = self.rooms["vectors"]
        means = totals + count * 8
        inner = means + count * self.bytes
        gate = means  # the means have been read by then
        sums_call(self.to, (0, area), count, self.dtype, x, totals)
        self.to.call(channels.divide(self.dtype), totals, means, count, area)
        self.dense(squeeze.fc1, (count, hidden), means, inner)
        self.elementwise((0, 1), hidden, (NONE, squeeze.act.name, ""), inner)
        self.dense(squeeze.fc2, (hidden, count), inner, gate)
        self.elementwise((0, 1), count, (NONE, squeeze.gate.name, ""), gate)
        gate_call(self.to, (0, area), count, self.dtype, (x, x, gate))

    def dense(self, conv: OpRecord, sizes: tuple[int, int], x: Place, y: Place) -> None:
        """A convolution of one position, with its bias."""
        weight, bias = (Place(STORE) + at * self.bytes for at in self.way.constants.dense[id(conv)])
        pointwise.product_calls(self.to, (0, 1), *sizes, self.dtype, (x, weight, y), bias)
