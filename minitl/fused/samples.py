"""The order of work: steps run sample by sample, and wait for all samples only where they must.

A map of one sample is small enough for the cache, a batch's is not. So a group of samples goes
through many steps before the next group starts. Where a batch norm needs the statistics of all
samples, or a product runs over all of them, `together` ends the phase.

The batch is parted by its shape alone, groups write apart, and what they sum is added in their
order: the same bytes on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, Shape
from minitl.kernels import blas, threads

SPANS = 4  # at most so many threads at once; each span has scratch maps of its own
WORTH_A_GROUP = 192  # rows; a matrix product of fewer is slow
ELEMENTS = 1 << 18  # of the widest map; a group of fewer does not outweigh the Python around its steps
WORTH_A_THREAD = 1 << 17  # elements; to wake another thread takes a tenth of a millisecond


class Part(NamedTuple):
    """A group of samples, start to stop, its number, and the place in scratch maps that it has for itself."""

    number: int
    start: int
    stop: int
    place: int = 0


class Map:
    """A map of the whole batch or, as `scratch`, only of the groups that are at work."""

    def __init__(self, array: Array, *, scratch: bool = False) -> None:
        self.array, self.scratch = array, scratch

    def __getitem__(self, part: Part) -> Array:
        """The map of these samples."""
        if self.scratch:
            return self.array[part.place, : part.stop - part.start]
        return self.array[part.start : part.stop]


class Samples:
    """A batch of `count` samples, whose smallest map has `rows` positions and whose widest `widest` elements.

    `allocate(shape, dtype)` makes every array of map or weight size. With `dry` steps are not run:
    only what is allocated and let go of happens, at the same moments.
    """

    def __init__(
        self,
        count: int,
        rows: int,
        widest: int,
        dtype: str,
        allocate: Callable[[Shape, str], Array],
        *,
        dry: bool = False,
    ) -> None:
        self.dtype, self.allocate, self.dry = dtype, allocate, dry
        group = max(-(-WORTH_A_GROUP // rows), ELEMENTS // widest)
        size = -(-count // min(SPANS, max(2, count // group)))
        self.spans = [(start, min(start + size, count)) for start in range(0, count, size)]
        self.group = min(size, group)
        self.pieces = sum(-(-(last - first) // self.group) for first, last in self.spans)  # how many parts
        self._places = list(range(len(self.spans)))  # free ones: the last one used is the warmest
        self._steps: list[Callable[[Part], object]] = []
        self._elements = 0
        self._after: list[Callable[[], object]] = []

    @cached_property
    def parts(self) -> list[Part]:
        """All parts, in order."""
        starts = [(start, last) for first, last in self.spans for start in range(first, last, self.group)]
        return [Part(i, start, min(start + self.group, last)) for i, (start, last) in enumerate(starts)]

    def whole(self, shape: Shape) -> Map:
        """An uninitialised map of the batch."""
        return Map(self.allocate(shape, self.dtype))

    def scratch(self, shape: Shape) -> Map:
        """A map of that shape of which only the samples in hand exist."""
        return Map(self.allocate((len(self.spans), self.group, *shape[1:]), self.dtype), scratch=True)

    def array(self, shape: Shape, make: Callable[[], Array], dtype: str = "") -> Array:
        """What `make` gives, an array of that shape."""
        return self.allocate(shape, dtype or self.dtype) if self.dry else make()

    def partial(self, *shape: int, dtype: str = "float64") -> Array:
        """Zeros of that shape (a few numbers a channel) for each part."""
        return np.zeros((0 if self.dry else self.pieces, *shape), dtype)

    def each(self, step: Callable[[Part], object], elements: int = WORTH_A_THREAD) -> None:
        """Run `step` on each part, after the steps before it; a light one says how many elements it looks at."""
        self._steps.append(step)
        self._elements += elements

    def alone(self, action: Callable[[], object], passing: int) -> None:
        """Run `action` by itself: it works on the whole batch, on threads of its own, in `passing` bytes of its own."""
        self.together()
        self.allocate((passing,), "uint8") if self.dry else action()

    def afterwards(self, finish: Callable[[], object]) -> None:
        """Run `finish` when all parts are through the steps given so far (in the order of calls)."""
        self._after.append(finish)

    def together(self) -> None:
        """Wait until every part is through all steps."""
        if not self.dry:
            if self._elements >= WORTH_A_THREAD:
                threads.run(self._span, self.spans)
            else:
                for first, last in self.spans:
                    self._span(first, last)
            for finish in self._after:
                finish()
        self._steps.clear()
        self._elements = 0
        self._after.clear()

    def _span(self, first: int, last: int) -> None:
        place = self._places.pop()
        with blas.worker():
            for part in self.parts:
                if first <= part.start < last:
                    here = part._replace(place=place)
                    for step in self._steps:
                        step(here)
        self._places.append(place)
