"""How a fused run is done: links, chained for each sample, run by all threads between barriers.

A *link* makes rows of one map from rows of the map before it. Links are given one after another; a barrier
runs them all, sample by sample: the last link's map is made band by band, and every link before it is
asked for just the rows that are still missing, so that a row goes on to the next map while it is in the
cache. Other maps that a link reads or writes are *cold*: a band of them is fetched before (see `kernels.fetch`).
A *unit* is some consecutive samples, whole groups of every map (see `kernels.groups`), which stay with one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from minitl.arrays import Shape, itemsize, size
from minitl.fused.plan import Plan, Slot, Tasks
from minitl.fused.program import Program
from minitl.kernels.fetch import fetch_call
from minitl.kernels.tasks import Place, Recorder, Span

CHUNK = 1 << 16  # numbers of a map that stay in the cache until the next link has read them


class Band(NamedTuple):
    """Rows r0 .. r1 - 1 of sample n, which are positions m0 .. m1 - 1 of the batch."""

    n: int
    rows: Span
    span: Span


Make = Callable[..., None]  # of a recorder, a band, and the places of the arrays
Reach = Callable[[int], int]


def same(stop: int) -> int:
    """The reach of a link that makes a row from the same row."""
    return stop


class Link(NamedTuple):
    """Makes bands of a map (N, H, W, C); `reach(r)` is how many rows of the map before it go into its first r.

    Those of its slots whose numbers are in `cold` hold maps of that shape, which are fetched first.
    """

    make: Make
    shape: Shape
    slots: tuple[Slot, ...]
    reach: Reach
    cold: tuple[int, ...]


class Links(Plan):
    """A plan of links, for a program; it is given arrays of some `shapes` and the program's parameters."""

    def __init__(self, program: Program, shapes: Iterable[Shape]) -> None:
        super().__init__(program.dtype, shapes, program.parameters)
        self.program, self.count = program, program.stages[0].x[0]
        self.size = min(program.unit, self.count)  # of a unit, in samples
        self.units = -(-self.count // self.size)
        self.ready = Tasks(self)  # what is to be made of parameters before the links are run
        self._links: list[Link] = []

    def link(self, make: Make, shape: Shape, *slots: Slot, reach: Reach = same, in_order: bool = False) -> None:
        """Make a map of that shape, after what was given before (see `Link`).

        `in_order` says that `make` takes its maps in the order in which they lie in memory: none need be fetched.
        """
        used = {slot for link in self._links for slot in link.slots}
        maps = {slot: i for i, slot in enumerate(slots) if slot.shape == shape and slot not in used}
        self._links.append(Link(make, shape, slots, reach, () if in_order else tuple(maps.values())))

    def barrier(self) -> None:
        """Make all maps given so far, and before that what is `ready` for them."""
        links, self._links = self._links, []
        if not links:
            self.ready.run()
            return

        def unit(to: Recorder, number: int) -> None:
            to.task()
            for n in range(number * self.size, min((number + 1) * self.size, self.count)):
                _Sample(to, n, links, itemsize(self.dtype)).run()

        self.ready.run_before(unit, self.units, *(slot for link in links for slot in link.slots))


class _Sample:
    """One sample's way through the links."""

    def __init__(self, to: Recorder, n: int, links: Sequence[Link], itself: int) -> None:
        self.to, self.n, self.links, self.itself = to, n, links, itself  # bytes of a number
        self.made = [0] * len(links)  # rows
        self.places: list[list[Place]] = []
        at = 2
        for link in links:
            self.places.append([Place(i) for i in range(at, at + len(link.slots))])
            at += len(link.slots)

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
            for i in link.cold:
                fetch_call(self.to, band.span, link.shape[3] * self.itself, self.places[number][i])
            link.make(self.to, band, *self.places[number])
            self.made[number] = stop
