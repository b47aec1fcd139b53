"""How a fused run is done: links, chained for each sample, run by all threads between barriers.

A *link* makes rows of one map from rows of the map before it. Links are given one after another; a barrier
runs them all, sample by sample: the last link's map is made band by band, and every link before it is
asked for just the rows that are still missing, so that a row goes on to the next map while it is in the
cache. A *unit* is some consecutive samples, whole groups of every map (see `kernels.groups`), which stay
with one thread. What links call is recorded once per program and then replayed. `dry` work computes nothing:
only what is allocated and let go of happens, at the same moments, which is how a step's memory is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minitl.arrays import Array, Shape, size
from minitl.fused.program import Program, Stage
from minitl.kernels.tasks import NOTHING, Place, Recorder, scratch_bytes
from minitl.pixels import table

PASSING = 7  # float64 vectors per channel that the few numbers of a norm take while they are made

CHUNK = 1 << 16  # numbers of a map that stay in the cache until the next link has read them

Rows = tuple[int, int]


class Band(NamedTuple):
    """Rows r0 .. r1 - 1 of sample n, which are positions m0 .. m1 - 1 of the batch."""

    n: int
    rows: Rows
    span: Rows


class Unit(NamedTuple):
    """Samples first .. stop - 1, unit `number` of all."""

    number: int
    first: int
    stop: int


Make = Callable[..., None]  # of a recorder, a unit, a band, and the places of the arrays
Reach = Callable[[int], int]


def same(stop: int) -> int:
    """The reach of a link that makes a row from the same row."""
    return stop


class Link(NamedTuple):
    """Makes bands of a map (N, H, W, C); `reach(r)` is how many rows of the map before it go into its first r."""

    make: Make
    shape: Shape
    arrays: tuple[Array, ...]
    reach: Reach


class Work:
    """The links of one run of `program` on `count` samples; `allocate(shape, dtype)` makes every array."""

    def __init__(
        self, program: Program, count: int, dtype: str, allocate: Callable[[Shape, str], Array], *, dry: bool
    ) -> None:
        self.program, self.count, self.dtype, self.allocate, self.dry = program, count, dtype, allocate, dry
        self.size = min(program.unit, count)
        self._links: list[Link] = []

    @property
    def units(self) -> int:
        """How many units there are."""
        return -(-self.count // self.size)

    def unit(self, number: int) -> Unit:
        """Unit `number`."""
        return Unit(number, number * self.size, min((number + 1) * self.size, self.count))

    def enter(self, stage: Stage) -> None:
        """Take note that what follows is for that stage."""

    def new(self, shape: Shape, dtype: str = "") -> Array:
        """An uninitialised array."""
        return self.allocate(shape, dtype or self.dtype)

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """An array of zeros."""
        array = self.allocate(shape, dtype)
        if not self.dry:
            array[...] = 0
        return array

    def table(self, stage: Stage) -> Array:
        """The numbers that pixels stand for, where the stage's input is images in pixels (see `minitl.pixels`)."""
        if not stage.normalisation:
            return NOTHING
        numbers = self.allocate((256, stage.x[3]), self.dtype)
        if not self.dry:
            numbers[...] = table(stage.normalisation, self.dtype)
        return numbers

    def numbers(self, count: int, passing: int, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
        """`count` vectors (C,) that `make` gives; it takes `passing` float64 numbers meanwhile."""
        if not self.dry:
            return make()
        _meanwhile = self.allocate((passing,), "float64")
        return tuple(self.new((passing // PASSING,)) for _ in range(count))

    def link(self, make: Make, shape: Shape, *arrays: Array, reach: Reach = same) -> None:
        """Make a map of that shape, after what was given before (see `Link`)."""
        self._links.append(Link(make, shape, arrays, reach))

    def barrier(self, name: Any) -> None:
        """Make all maps given so far; `name` is that of these links within the program."""
        links, self._links = self._links, []

        def record(to: Recorder, units: int) -> None:
            for number in range(units):
                to.task()
                unit = self.unit(number)
                for n in range(unit.first, unit.stop):
                    _Sample(to, unit, n, links).run()

        def scratch() -> tuple[int, int]:
            first = Recorder()
            record(first, 1)
            return first.size[0], self.units

        if links:
            self.recorded(name, lambda to: record(to, self.units), scratch, *(a for link in links for a in link.arrays))

    def recorded(
        self, name: Any, record: Callable[[Recorder], None], scratch: Callable[[], tuple[int, int]], *arrays: Array
    ) -> None:
        """Run the tasks that `record(recorder)` records, on these arrays; `scratch()` is `Recorder.size` of them."""
        if self.dry:
            self.allocate((scratch_bytes(*scratch()),), "uint8")
            return
        if name not in self.program.tables:
            recorder = Recorder()
            record(recorder)
            self.program.tables[name] = recorder.table()
        self.program.tables[name].run(*arrays)


class _Sample:
    """One sample's way through the links."""

    def __init__(self, to: Recorder, unit: Unit, n: int, links: Sequence[Link]) -> None:
        self.to, self.unit, self.n, self.links = to, unit, n, links
        self.made = [0] * len(links)  # rows
        self.places: list[list[Place]] = []
        at = 2
        for link in links:
            self.places.append([Place(i) for i in range(at, at + len(link.arrays))])
            at += len(link.arrays)

    def run(self) -> None:
        """Make the last map, in bands so small that those of the largest map stay in the cache."""
        last = len(self.links) - 1
        height = self.links[last].shape[1]
        widest = max(size(link.shape[1:]) for link in self.links)
        step = max(1, height * CHUNK // widest)
        for stop in range(step, height + step, step):
            self.make(last, min(stop, height))

    def make(self, number: int, stop: int) -> None:
        """Make the rows before `stop` of this link's map that are missing."""
        link, first = self.links[number], self.made[number]
        if first < stop:
            if number:
                whole = self.links[number - 1].shape[1]
                self.make(number - 1, whole if stop == link.shape[1] else min(whole, link.reach(stop)))
            start, width = self.n * link.shape[1], link.shape[2]
            band = Band(self.n, (first, stop), ((start + first) * width, (start + stop) * width))
            link.make(self.to, self.unit, band, *self.places[number])
            self.made[number] = stop
