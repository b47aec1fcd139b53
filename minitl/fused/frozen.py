"""Parts of the network in which nothing is trained and through which no gradient passes, depth first.

A sample goes through all stages before the next one starts, and nothing is kept: beside input and
output only one sample's maps are alive per thread. Of a large map only a few rows exist at a time: those that the
maps after it have yet to read, in a ring that moves down the map. Small ones are whole, and so is what a
squeeze-and-excite takes the means of.

An image that is alone is shared by threads: each makes a band of the next whole map's rows, or some of its channels,
and then waits for the others. A row of a map in between that both bands are made of is made twice; so fewer maps are
in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from minitl.arrays import itemsize, positions, size
from minitl.fused import calls
from minitl.fused.links import Band
from minitl.fused.plan import NO_SLOT, Plan, Slot, Tasks
from minitl.fused.program import Program, Squeeze, Stage
from minitl.kernels import elementwise, pointwise
from minitl.kernels.channels import ADD, MOVE, ONE, SCALE, means_call
from minitl.kernels.pointwise import End
from minitl.kernels.rules import NONE
from minitl.kernels.tasks import Place, Places, Recorder, Span, aligned

NEAR = 1 << 17  # bytes of a wide map's rows
WHOLE = 1 << 19  # bytes of a block's output that is not cut into rows
SMALL = 1 << 18  # the same of the maps within blocks, where an image is alone
BANDS = 2  # that its whole maps are made in, each by a thread
LARGE = 1 << 18  # numbers of a weight that is made ready a panel at a time, anew for each image,
FEW = 64  # where a map has no more positions than that


def frozen_forward(programs: Sequence[Program]) -> Plan:
    """The plan of `programs`, one after another: of x and their parameters, the last one's output."""
    return programs[0].planned(tuple(programs), lambda: _plan(programs))


def _plan(programs: Sequence[Program]) -> Plan:
    way = _Way(programs)
    count, *_ = shape = way.links[0].stage.x
    plan = Plan(way.dtype, [shape], (p for program in programs for p in program.parameters))
    y, ready, slots = plan.new((count, *way.output)), Tasks(plan), list[Slot]()

    def place(*found: Slot) -> Places:
        slots.extend(found)
        return tuple(Place(2 + len(slots) - len(found) + i) for i in range(len(found)))

    shared = plan.new((way.shared,), "uint8") if way.alone else NO_SLOT
    places = place(*plan.inputs, y, plan.table(way.links[0].stage), shared)
    constants = dict[Any, Places]()  # of each convolution and norm what is made of their parameters
    for stage in (link.stage for link in way.links):
        weight, *_ = (plan.values[p] for p in stage.conv.parameters)
        constants[stage.conv] = place(weight if _by_panels(stage) else calls.filters(ready, stage.conv))
        constants[stage.norm] = place(*calls.norm_factors(ready, stage.norm))
        for dense, _ in stage.squeeze.layers if stage.squeeze else ():
            constants[dense] = place(calls.filters(ready, dense), plan.values[dense.parameters[1]])

    def sample(to: Recorder, number: int) -> None:
        _Sample(to, number, way, places, constants).run()

    ready.run_before(sample, count, *slots, tasks=BANDS if way.alone else 0)
    return plan.finish([y])


def weights_size(program: Program) -> int:
    """Numbers that the program's weights and norms take, as the kernels read them."""

    def of(stage: Stage) -> int:
        weight = size(stage.weight) if _by_panels(stage) else calls.filter_size(stage.conv)
        dense = sum(calls.filter_size(conv) for conv, _ in stage.squeeze.layers) if stage.squeeze else 0
        return weight + dense + 2 * stage.y[3]

    return program.planned("weights", lambda: sum(map(of, program.stages)))


def _by_panels(stage: Stage) -> bool:
    """Whether the map is so small, and the weight so large, that no room is made for all of the weight's panels."""
    return stage.pointwise and positions(stage.y[1:]) <= FEW and size(stage.weight) > LARGE


class _Link(NamedTuple):
    """Makes map i + 1 from map i, where it is number i; then adds map number `adds`, if any.

    `ends` a block; its map stays `whole`, or a few rows of it exist at a time.
    """

    stage: Stage
    adds: int | None
    ends: bool
    whole: bool


def _links(programs: Sequence[Program], dtype: str, *, alone: bool) -> Iterator[_Link]:
    """The programs' stages; `alone` says that there is but one image."""
    stages = [stage for program in programs for stage in program.stages]
    number = 0
    for program, following in zip(programs, (*programs[1:], None), strict=True):
        apart = following and any(stage.squeeze or _by_panels(stage) for stage in following.stages[1:])
        again = following and following.residual and (alone or apart)  # read in a later chain
        first, number = number, number + len(program.stages)
        for i in range(first, number):
            ends, after = i == number - 1, stages[i + 1] if i + 1 < len(stages) else None
            whole = after is None or bool(after.squeeze) or _by_panels(stages[i]) or _by_panels(after)
            if not whole:
                most = WHOLE if ends else SMALL if alone else 0
                whole = bool(ends and again) or size(stages[i].y[1:]) * itemsize(dtype) <= most
            yield _Link(stages[i], first if ends and program.residual else None, ends, whole)


class _Step(NamedTuple):
    """Rows of a map that are made at a time; of those before, the ones from `front` on stay.

    `before` is the row that the map's room began with until then.
    """

    link: int
    rows: Span
    front: int
    before: int


class _Way:
    """What a sample goes through: links in chains, each up to a whole map, and bands of it; and where maps lie.

    Whole maps are in one block, of `shared` bytes; in another, of `own` bytes, is what a chain needs besides.
    Threads that share an image share the first.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self.dtype, self.pool = programs[0].dtype, programs[-1].pool
        self.bytes, self.alone = itemsize(self.dtype), programs[0].stages[0].x[0] == 1
        self.links = tuple(_links(programs, self.dtype, alone=self.alone))
        self.input_bytes = 1 if self.links[0].stage.normalisation else self.bytes
        ends = [i for i, link in enumerate(self.links) if link.whole]
        self.chains = [self._bands(a + 1, b) for a, b in zip([-1, *ends], ends, strict=False)]
        self.shared, self.whole = self._whole_maps()
        self.own, self.rooms = self._own_rooms()

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of a sample's output."""
        return self.pool.cost.output[1:] if self.pool else self.links[-1].stage.y[1:]

    def shape(self, number: int) -> tuple[int, int, int]:
        """Height, width and channels of a map."""
        link = self.links[max(number - 1, 0)]
        _, h, w, c = link.stage.y if number else link.stage.x
        return h, w, c

    def _bands(self, first: int, last: int) -> list[list[_Step]]:
        """How links `first` to `last` make each band of the last one's map."""
        height = self.links[last].stage.y[1]
        many = -(-height // BANDS) if self.alone and not _by_panels(self.links[first].stage) else height
        bands = ((start, min(start + many, height)) for start in range(0, height, many))
        return [_steps(self.links, first, last, self.bytes, band) for band in bands]

    def _whole_maps(self) -> tuple[int, dict[int, int]]:
        """Bytes of the block of whole maps, and where in it each lies, by its number."""
        last, at, places = len(self.links), 0, dict[int, int]()
        outputs = [i + 1 for i, link in enumerate(self.links) if link.whole and link.ends]
        wide = [i + 1 for i, link in enumerate(self.links) if link.whole and not link.ends]
        for numbers in (outputs[::2], outputs[1::2], wide[::2], wide[1::2]):  # a chain reads one and writes the other
            sizes = {n: size(self.shape(n)) * self.bytes for n in numbers if n < last or self.pool}
            places |= dict.fromkeys(sizes, at)
            at += aligned(max(sizes.values(), default=0))
        return at, places

    def _own_rooms(self) -> tuple[int, dict[object, int]]:
        """The same for the other block: of the maps in between by their numbers, and of what else there is, by name."""
        chains, places = [self._rings(bands) for bands in self.chains], dict[object, int]()
        for rings in chains:
            places |= zip(rings, accumulate(rings.values(), initial=0), strict=False)
        at = max(sum(rings.values()) for rings in chains)
        large = (link.stage for link in self.links if _by_panels(link.stage))
        rooms = (next(pointwise.panels(stage.y[3], self.dtype))[2] * stage.x[3] for stage in large)
        places["panel"] = at
        at += aligned(max(rooms, default=0) * self.bytes)
        vectors = max((self._vectors(link.stage) for link in self.links), default=0)
        vectors = max(vectors, 8 * self.shape(len(self.links))[2] if self.pool else 0)
        places["vectors"] = at
        places["numbers"] = at + aligned(vectors)  # of images in pixels, as many rows as are read at a time
        return at + vectors, places

    def _rings(self, bands: Sequence[Sequence[_Step]]) -> dict[int, int]:
        """Bytes of the maps of which a chain has some rows at a time."""
        rings = dict[int, int]()
        for step in (step for band in bands for step in band):
            if not self.links[step.link].whole:
                number, row = step.link + 1, size(self.shape(step.link + 1)[1:]) * self.bytes
                rings[number] = max(rings.get(number, 0), aligned((step.rows[1] - step.front) * row))
        return rings

    def _vectors(self, stage: Stage) -> int:
        """Bytes of a squeeze-and-excite's totals in float64, means and hidden numbers."""
        return (8 + self.bytes) * stage.x[3] + self.bytes * stage.squeeze.hidden if stage.squeeze else 0


def _steps(links: Sequence[_Link], first: int, last: int, itself: int, band: Span) -> list[_Step]:
    """How links `first` to `last` make rows of the last one's map, a few at a time, each asking the one before it."""
    steps, made, fronts = list[_Step](), [link.stage.y[1] for link in links], [0] * len(links)

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
                make(number - 1, min(stage.rows_read(stop), stage.x[1]))
            front = oldest(number) if number < last else 0
            steps.append(_Step(number, (made[number], stop), front, fronts[number]))
            made[number], fronts[number] = stop, front

    made[last] = band[0]
    for number in reversed(range(first, last)):  # of a map in between, rows before those that the band needs count so
        made[number] = fronts[number] = oldest(number)
    stages = [link.stage for link in links[first : last + 1]]
    height = stages[-1].y[1]
    by = height if _by_panels(stages[0]) else max(1, min(_rows_near(s, itself) * height // s.y[1] for s in stages))
    for stop in range(band[0] + by, band[1] + by, by):
        make(last, min(stop, band[1]))
    return steps


def _rows_near(stage: Stage, itself: int) -> int:
    """How many rows of its output a stage makes from rows that stay in the cache."""
    row = stage.x[2] * stage.x[3] * itself
    near = NEAR // 8 if stage.normalisation else NEAR  # rows of pixels are made numbers anew for every step
    return max(1, min(stage.y[1], (near // row - stage.window.k) // stage.window.s + 1))


class _Sample:
    """One sample's way through: records its calls."""

    def __init__(self, to: Recorder, number: int, way: _Way, places: Places, constants: dict[Any, Places]) -> None:
        self.to, self.number, self.way, self.constants = to, number, way, constants
        self.x, self.y, self.table, shared = places
        self.dtype, self.bytes, self.last = way.dtype, way.bytes, len(way.links)
        self.fronts = [0] * (self.last + 1)  # the rows that the maps' rooms begin with
        before = 0 if way.alone else way.shared
        whole, own = shared if way.alone else to.scratch(before), to.scratch(way.own, before)
        self.rooms: dict[object, Place] = {what: whole + at for what, at in way.whole.items()}
        self.rooms |= {what: own + at for what, at in way.rooms.items()}

    def run(self) -> None:
        """All chains, from the input to the output."""
        if not self.way.alone:
            self.to.task()
        for bands in self.way.chains:
            first = bands[0][0].link
            stage = self.way.links[first].stage
            if stage.squeeze:
                self.begin()
                self.excite(stage, stage.squeeze, self.at(first))
            for band in bands:
                self.begin(waits=band is bands[0])
                for step in band:
                    self.make(step)
        if self.way.pool:
            self.begin()
            h, w, c = self.way.shape(self.last)
            totals, means = self.rooms["vectors"], self.y + self.number * c * self.bytes
            means_call(self.to, (0, h * w), c, self.dtype, self.at(self.last), totals, means)

    def begin(self, *, waits: bool = True) -> None:
        """Where an image is alone, what follows is a task of its own, which perhaps waits for all before."""
        if self.way.alone:
            if waits:
                self.to.barrier()
            self.to.task()

    def at(self, number: int, row: int = 0) -> Place:
        """Where that row of a map is."""
        _, w, c = shape = self.way.shape(number)
        if number in self.rooms:
            return self.rooms[number] + (row - self.fronts[number]) * w * c * self.bytes
        place, itself = (self.y, self.bytes) if number else (self.x, self.way.input_bytes)
        return place + (self.number * size(shape) + row * w * c) * itself

    def make(self, step: _Step) -> None:
        """Some rows of a map; those made before that are still to be read move to the front."""
        link, number, (start, stop) = self.way.links[step.link], step.link + 1, step.rows
        _, w, c = self.way.shape(number)
        if step.before < step.front < start:
            kept, front = self.at(number, step.front), self.at(number, step.before)
            MOVE.call(self.to, ONE, (start - step.front) * w * c, self.dtype, kept, front)
        self.fronts[number] = step.front
        self.stage(link.stage, step.rows, self.at(step.link), self.at(number))
        if link.adds is not None:
            if _by_panels(link.stage):
                self.begin()
            y, added = self.at(number, start), self.at(link.adds, start)
            ADD.call(self.to, ONE, (stop - start) * w * c, self.dtype, y, added, y)

    def stage(self, stage: Stage, rows: Span, x: Place, y: Place) -> None:
        """Convolution, norm and activation of some rows."""
        span = (rows[0] * stage.y[2], rows[1] * stage.y[2])
        (weight,), (scale, shift) = self.constants[stage.conv], self.constants[stage.norm]
        if _by_panels(stage):
            self.panels(stage, span, (x, weight, y), End(stage.what[1], scale, shift))
        else:
            band, at = Band(0, rows, span), self.rooms["numbers"].offset
            x = calls.as_numbers(self.to, stage, band, x, self.table, at)
            calls.convolve(self.to, stage, band, x, weight, y, End(stage.what[1], scale, shift))

    def panels(self, stage: Stage, span: Span, places: Places, end: End) -> None:
        """A large convolution: some output channels after the other, or by several threads."""
        (x, weight, y), room, (outputs, inputs) = places, self.rooms["panel"], stage.weight[:2]
        for first, last, _ in pointwise.panels(outputs, self.dtype):
            if first:
                self.begin(waits=False)
            at, rows = first * self.bytes, weight + first * inputs * self.bytes
            pointwise.pack_calls(self.to, (last - first, inputs), self.dtype, True, rows, room)
            part, end_here = (x, room, y + at), End(end.name, end.scale + at, end.shift + at)
            pointwise.product_calls(self.to, span, inputs, last - first, self.dtype, part, end=end_here, step=outputs)

    def excite(self, stage: Stage, squeeze: Squeeze, x: Place) -> None:
        """Make the gate of a whole map, and multiply the map by it."""
        count, area, to, dtype = stage.x[3], positions(stage.x[1:]), self.to, self.dtype
        totals = self.rooms["vectors"]
        means = totals + count * 8
        h, inputs, other = means, count, means + count * self.bytes
        means_call(to, (0, area), count, dtype, x, totals, means)
        for dense, act in squeeze.layers:
            (weight, bias), outputs = self.constants[dense], act.shapes[0][3]
            pointwise.product_calls(to, (0, 1), inputs, outputs, dtype, (h, weight, other), bias)
            elementwise.up_call(to, (0, 1), outputs, dtype, (NONE, act.name, ""), other, other)
            h, inputs, other = other, outputs, h  # what was read is written over
        SCALE.call(to, (0, area), count, dtype, x, h, x)
