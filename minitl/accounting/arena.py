"""Offline placement: every buffer of a step at a fixed offset in one block of memory, as small as can be found.

Buffers that are alive at one moment must not overlap. To find the smallest block is NP-hard
("dynamic storage allocation", Garey & Johnson 1979, SR2); no block can be smaller than the most
bytes alive at any moment. Found here, in this order, until the size is within half a percent of that bound:

1. Buffers alive from the first moment to the last (parameters) lie at the bottom, side by side.
2. The others are placed one after the other, each in the lowest or in the tightest gap that is
   free for as long as it lives ("greedy", as in Pisarchyk & Lee 2020, arXiv:2001.03288), in several
   orders: the largest first, the longest-lived first, what lives when most is alive first, ...
3. The same from both ends: what is there at the last moment (a parameter's gradient) hangs from a ceiling
   near the bound. For what is kept in forward and let go of in backward grows and shrinks like a stack from the
   bottom, while gradients pile up.
4. The best order is improved: what ends highest, or begins a pile-up below it, is placed earlier.

The same buffers and seed give the same offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from minitl.arrays import Array
from minitl.checks import expect_count
from minitl.errors import UsageError, ValueRangeError, brief

TRIES, FEW = 1000, 60  # placements at most, some 8 ms each for 1,100 buffers; and where one is good
CLOSE, GOOD = 1.005, 1.05  # times the lower bound: better is not worth looking for, or not for long
CEILINGS = (1.0, 1.01, 1.02)  # times the lower bound
NOWHERE = -1


@dataclass(frozen=True)
class Buffer:
    """An array of `bytes`, alive from moment `first` to moment `last`, both included; `kind` is for the reader."""

    name: str
    layer: str
    bytes: int
    first: int
    last: int
    kind: str = ""

    def __post_init__(self) -> None:
        for field in ("bytes", "first", "last"):
            value = expect_count(f"{field} of {self.name}", getattr(self, field), least=0, layer=self.layer)
            object.__setattr__(self, field, value)
        if self.last < self.first:
            span = f"{self.first} to {self.last}"
            raise ValueRangeError(layer=self.layer, expected=f"{self.name} to end after it begins", got=span)


@dataclass(frozen=True)
class Placed(Buffer):
    """A buffer at its `offset` from the beginning of the block, in bytes."""

    offset: int = 0


@dataclass(frozen=True)
class Arena:
    """Buffers in a block of `size_bytes`; none could be smaller than `lower_bound_bytes`."""

    size_bytes: int
    lower_bound_bytes: int
    buffers: tuple[Placed, ...]

    @property
    def ratio(self) -> float:
        """Size over lower bound; 1 is the best there can be."""
        return self.size_bytes / self.lower_bound_bytes if self.lower_bound_bytes else 1.0

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return asdict(self)


def place(buffers: Sequence[Buffer], *, alignment: int = 1, tries: int = TRIES, seed: int = 0) -> Arena:
    """Give every buffer an offset that is a multiple of `alignment`; at most `tries` placements are compared.

    Raises ValueRangeError for an alignment or a number of tries below 1.
    """
    alignment = expect_count("alignment", alignment, op="arena")
    tries = expect_count("tries", tries, op="arena")
    seed = expect_count("seed", seed, least=0, op="arena")
    if not isinstance(buffers, Sequence) or not all(isinstance(b, Buffer) for b in buffers):
        raise UsageError(op="arena", expected="a list of Buffers", got=brief(repr(buffers)))
    bound = lower_bound(buffers)
    best = _search(_Jobs(buffers, alignment), bound, tries, np.random.default_rng(seed))
    placed = (Placed(**vars(b), offset=int(at)) for b, at in zip(buffers, best.offsets, strict=True))
    return Arena(best.size, bound, tuple(placed))


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The most bytes alive at any moment."""
    change: dict[int, int] = {}
    for b in buffers:
        change[b.first] = change.get(b.first, 0) + b.bytes
        change[b.last + 1] = change.get(b.last + 1, 0) - b.bytes
    alive = most = 0
    for moment in sorted(change):
        alive += change[moment]
        most = max(most, alive)
    return most


class _Layout(NamedTuple):
    """Offsets by buffer, the end of the highest, and the order they were placed in."""

    size: int
    offsets: Array
    order: list[int]


class _Jobs:
    """The buffers as arrays, with what each conflicts with."""

    def __init__(self, buffers: Sequence[Buffer], alignment: int) -> None:
        self.alignment = alignment
        self.bytes, self.first, self.last = (
            np.array([getattr(b, field) for b in buffers], np.int64) for field in ("bytes", "first", "last")
        )
        start, end = self.first.min(initial=0), self.last.max(initial=0)
        lasting = (self.first == start) & (self.last == end)
        self.bottom, self.end = np.flatnonzero(lasting), int(end)
        self.loose = np.flatnonzero(~lasting & (self.bytes > 0))
        self.conflicts = {
            int(i): self.loose[(self.first[self.loose] <= self.last[i]) & (self.last[self.loose] >= self.first[i])]
            for i in self.loose
        }

    def lay(self, order: list[int], *, tightest: bool, limit: int, ceiling: int = 0) -> _Layout | None:
        """Place the buffers in this order, those of the last moment below the `ceiling` where there is one.

        None as soon as one ends at `limit` or above.
        """
        offsets = np.full(len(self.bytes), NOWHERE, np.int64)
        offsets[self.bytes == 0] = 0
        floor = size = 0
        for i in self.bottom.tolist():
            offsets[i] = floor
            size = floor + int(self.bytes[i])
            floor = self._aligned(size)
        for i in order:
            offsets[i] = self._gap(i, offsets, floor, tightest, ceiling if self.last[i] == self.end else 0)
            size = max(size, int(offsets[i] + self.bytes[i]))
            if size >= limit:
                return None
        return _Layout(size, offsets, order)

    def _aligned(self, offset: int) -> int:
        return -(-offset // self.alignment) * self.alignment

    def _gap(self, i: int, offsets: Array, floor: int, tightest: bool, ceiling: int) -> int:
        """The lowest, or the tightest, gap among what buffer i conflicts with; above all of it where none will do.

        Under a ceiling, as high as it fits.
        """
        others = self.conflicts[i]
        others = others[offsets[others] >= 0]
        begins = offsets[others]
        order = np.argsort(begins)
        ends = np.maximum.accumulate(np.concatenate(([floor], (begins + self.bytes[others])[order])))
        ends = -(-ends // self.alignment) * self.alignment  # where a gap begins
        stops = np.append(begins[order], max(ceiling, ends[-1]))
        room = stops - ends - self.bytes[i]  # what it would leave of each
        fits = np.flatnonzero(room >= 0)
        if not len(fits):
            return int(ends[-1])
        if ceiling:
            return int(stops[fits[-1]] - self.bytes[i]) // self.alignment * self.alignment
        return int(ends[fits[np.argmin(room[fits])] if tightest else fits[0]])

    def pressure(self) -> Array:
        """For each buffer, the most bytes alive at any moment of its life."""
        change = np.zeros(self.end + 2, np.int64)
        np.add.at(change, self.first, self.bytes)
        np.add.at(change, self.last + 1, -self.bytes)
        alive = np.cumsum(change)
        return np.array([alive[a : b + 1].max() for a, b in zip(self.first, self.last, strict=True)], np.int64)


def _orders(jobs: _Jobs) -> Iterator[list[int]]:
    """Orders to begin with."""
    size, first, last = (array[jobs.loose] for array in (jobs.bytes, jobs.first, jobs.last))
    life, pressure = last - first, jobs.pressure()[jobs.loose]
    for keys in (
        (first, -size),
        (first, -size, -pressure),
        (-size, -life),
        (first, -life),
        (-life, -size),
        (first, -size * life),
        (-first, -size),
        (-last, -life),
        (last, -life),
    ):
        yield [int(i) for i in jobs.loose[np.lexsort(keys)]]


def _search(jobs: _Jobs, bound: int, tries: int, rng: np.random.Generator) -> _Layout:
    """The best layout of at most `tries`."""
    best: _Layout | None = None
    tried = 0

    def done() -> bool:
        enough = GOOD if tried >= FEW else CLOSE
        return tried >= tries or (best is not None and best.size <= enough * bound)

    for order in _orders(jobs):
        for tightest, ceiling in ((False, 0.0), (True, 0.0), *((False, c) for c in CEILINGS)):
            if not done():
                limit = best.size if best else 1 << 62
                best = jobs.lay(order, tightest=tightest, limit=limit, ceiling=int(ceiling * bound)) or best
                tried += 1
    assert best is not None
    while not done() and len(jobs.loose):
        order = _improved(jobs, best, rng)
        ceiling = rng.uniform(bound, best.size) * rng.integers(2)
        best = jobs.lay(order, tightest=bool(rng.integers(2)), limit=best.size + 1, ceiling=int(ceiling)) or best
        tried += 1
    return best


def _improved(jobs: _Jobs, layout: _Layout, rng: np.random.Generator) -> list[int]:
    """The layout's order with one of the buffers that end highest, or one it conflicts with, moved forward."""
    ends = layout.offsets + jobs.bytes
    highest = int(rng.choice(jobs.loose[ends[jobs.loose] == ends[jobs.loose].max()]))
    order = list(layout.order)
    moved = highest if rng.random() < 0.5 else int(rng.choice(jobs.conflicts[highest]))
    place = order.index(moved)
    order.insert(int(rng.integers(0, place + 1)), order.pop(place))
    return order
