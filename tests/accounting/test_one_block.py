"""The proof of the arena: a step whose arrays all lie in one block of its size, where it says, gives the same bits.

NumPy is told to take the data of every array from one buffer (NEP 49), which never asks anybody else for memory. Which
array is which of the arena's is known from where it is made: the shadow and the real step go through the same places
in the same order (an op, a fused run's `new`, ...), and a first run tells which arrays outlive the place they were
made in. Those are the arena's, and lie at its offsets; what a place makes for itself alone, and the small vectors
which the arena has a room for, lie wherever nothing else is at that moment. Whatever overlaps, or does not fit, fails.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from models import as_pixels, batch, stir, trained

import minitl
from minitl import statistics
from minitl.accounting import arena, trace
from minitl.accounting.arena import Arena, Buffer, Placed, place
from minitl.accounting.array_memory import ArrayMemory, counting
from minitl.arrays import Array
from minitl.fused.plan import Work
from minitl.networks import Model
from minitl.pixels import NORMALISATIONS
from minitl.step import forward_backward
from minitl.tape import Tape
from minitl.training.optimizers import SGD

OUTSIDE = -1
SPACES = ("workspace", "factors")  # buffers of the arena that stand for several arrays


class Places:
    """Numbers the places where arrays are made; places within a place are part of it."""

    def __init__(self, entered: Callable[[int], None], left: Callable[[int], None]) -> None:
        self.count, self.depth, self.entered, self.left = 0, 0, entered, left

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inside(*arguments: Any, **named: Any) -> Any:
            self.depth += 1
            if self.depth == 1:
                self.entered(self.count)
            try:
                return function(*arguments, **named)
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.left(self.count)
                    self.count += 1

        return inside


TAPE = ("labels", "_read", "_forward", "_backward", "_ones_like", "_accumulate")
WORK = ("new", "do", "run")


def watch(patch: pytest.MonkeyPatch, places: Places, tape: type[Tape], work: type[Work]) -> None:
    """Let `places` see every place of these classes where an array may be made."""
    for owner, names in ((tape, TAPE), (work, WORK)):
        for name in names:
            patch.setattr(owner, name, places(getattr(owner, name)))
    patch.setattr(statistics, "_copy", places(statistics._copy))


Made = list[list[int]]  # by place: numbers of the arena's buffers that it makes


def planned(model: Model, n: int, resolution: int, apply: bool, pixels: bool) -> tuple[Arena, Made]:
    """The arena, and which of its buffers are made where."""
    starts, made = [], list[tuple[int, int]]()
    traces = []
    with pytest.MonkeyPatch.context() as patch:
        original = trace.Trace.__init__

        def init(self: Any) -> None:
            original(self)
            traces.append(self)

        patch.setattr(trace.Trace, "__init__", init)
        places = Places(
            lambda _: starts.append(len(traces[0].spans)), lambda _: made.append((starts[-1], len(traces[0].spans)))
        )
        watch(patch, places, trace.TracingTape, trace.TracingWork)
        found = arena(model, batch=n, resolution=resolution, apply=apply, pixels=pixels)
    sizes = [span.bytes for span in traces[0].spans]
    first = len(found.buffers) - sum(size > 0 for size in sizes)
    number = np.cumsum([first, *(size > 0 for size in sizes)])
    return found, [[int(number[i]) for i in range(*span) if sizes[i]] for span in made]


class Recorded(ArrayMemory):
    """Ordinary memory; and for each place, the sizes of the arrays it makes, and when each of them goes.

    That is the number of arrays the place has made by then; an array that outlives the place has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.ends = dict[int, list[int]](), dict[int, dict[int, int]]()
        self.survivors, self.goes = dict[int, tuple[int, int]](), dict[tuple[int, int], int]()
        self.leave(OUTSIDE)

    def enter(self, number: int) -> None:
        self.here, self.own = self.sizes.setdefault(number, []), dict[int, int]()
        self.gone = self.ends.setdefault(number, {})

    def leave(self, number: int) -> None:
        if number != OUTSIDE:
            self.survivors |= {place: (number, ordinal) for place, ordinal in self.own.items()}
        self.here, self.own, self.gone = [], {}, {}

    def allocate(self, size: int) -> int | None:
        place = super().allocate(size)
        assert place
        self.own[place] = len(self.here)
        self.here.append(size)
        return place

    def release(self, place: int) -> None:
        if place in self.own:
            self.gone[self.own.pop(place)] = len(self.here)
        elif place in self.survivors:
            self.goes[self.survivors.pop(place)] = len(self.goes)
        super().release(place)

    def outlives(self, number: int, ordinal: int) -> bool:
        return ordinal not in self.ends[number]


class Block(ArrayMemory):
    """All memory from one buffer, at the offsets of an arena."""

    def __init__(self, arena: Arena, made: Made, recorded: Recorded) -> None:
        super().__init__()
        self.arena, self.made, self.recorded = arena, made, recorded
        self._buffer = ctypes.create_string_buffer(arena.size_bytes + 64)
        self.base = -(-ctypes.addressof(self._buffer) // 64) * 64
        self.taken: dict[int, int] = {}  # bytes by offset
        self.room = next((b.offset, b.bytes) for b in arena.buffers if b.name == "vectors")
        self.wrong: list[str] = []
        self.used = set[int]()
        self.known = [self._known(number) for number in range(len(made))]  # now: it makes arrays itself
        self.leave(OUTSIDE)

    def _known(self, number: int) -> tuple[dict[int, Placed], dict[int, int]]:
        fixed = self._matched(number)
        return fixed, self._temporary(number, fixed)

    def array(self, number: int, like: Array) -> Array:
        """Buffer `number` of the arena as an array (made while this serves), with the numbers of another."""
        self.at, self.ordinal, self.fixed = number, 0, {0: self.arena.buffers[number]}
        self.used.add(number)
        made = np.empty_like(like)
        made[...] = like
        self.leave(number)
        return made

    def enter(self, number: int) -> None:
        self.at, self.ordinal = number, 0
        self.fixed, self.temporary = self.known[number]

    def leave(self, number: int) -> None:
        self.at, self.fixed, self.temporary = OUTSIDE, dict[int, Placed](), dict[int, int]()

    def _temporary(self, number: int, fixed: dict[int, Placed]) -> dict[int, int]:
        """Offsets of the place's own arrays in its workspace, by ordinal, where they fit in there."""
        spaces = [b for b in (self.arena.buffers[i] for i in self.made[number]) if b.name in SPACES]
        sizes, ends = self.recorded.sizes[number], self.recorded.ends[number]
        own = {i: Buffer("", "", -(-sizes[i] // 16) * 16, i, end - 1) for i, end in ends.items() if i not in fixed}
        found = place(list(own.values())) if len(spaces) == 1 else None
        if not found or found.size_bytes > spaces[0].bytes:
            return {}
        return {i: spaces[0].offset + b.offset for i, b in zip(own, found.buffers, strict=True)}

    def _matched(self, number: int) -> dict[int, Placed]:
        """The arena's buffers by the ordinal of the array that each is: one of its size, of several the last to go."""
        sizes, goes, never = self.recorded.sizes[number], self.recorded.goes, len(self.recorded.goes)
        outlives = {i for i in range(len(sizes)) if self.recorded.outlives(number, i)}
        left = sorted(range(len(sizes)), key=lambda i: (i not in outlives, -goes.get((number, i), never)))
        found = {}
        for which in sorted(self.made[number], key=lambda which: -self.arena.buffers[which].last):
            b = self.arena.buffers[which]
            i = next((i for i in left if sizes[i] == b.bytes and b.name not in SPACES), None)
            if i is not None:
                left.remove(i)
                found[i] = b
                self.used.add(which)
        return found

    def allocate(self, size: int) -> int | None:
        offset = self._offset(size)
        if offset is None:
            return None
        self.taken[offset] = size
        ctypes.memset(self.base + offset, 0, size)
        return self.base + offset

    def release(self, place: int) -> None:
        del self.taken[place - self.base]

    def _offset(self, size: int) -> int | None:
        if self.at == OUTSIDE:
            return self._gap(size, [], 0, self.arena.size_bytes)
        ordinal, self.ordinal = self.ordinal, self.ordinal + 1
        if ordinal in self.fixed:
            b = self.fixed[ordinal]
            return self._at(b.offset, size, b.name) if size == b.bytes else self._refuse(f"{b} for {size} bytes")
        if ordinal in self.temporary:
            return self._at(self.temporary[ordinal], size, "a temporary array")
        if self.recorded.outlives(self.at, ordinal):
            return self._gap(size, [], self.room[0], sum(self.room))
        end = self.recorded.ends[self.at][ordinal]
        coming = [(b.offset, b.bytes) for i, b in self.fixed.items() if ordinal < i < end]
        return self._gap(size, coming, 0, self.arena.size_bytes)

    def _at(self, offset: int, size: int, what: str) -> int | None:
        """That offset, unless something is there."""
        over = [(o, s) for o, s in self.taken.items() if o < offset + size and offset < o + s]
        return self._refuse(f"{what} at {offset} over {over}") if over else offset

    def _refuse(self, why: str) -> None:  # what NumPy is told raises MemoryError
        self.wrong.append(f"place {self.at}: {why}")

    def _gap(self, size: int, avoid: list[tuple[int, int]], start: int, stop: int) -> int | None:
        """The tightest place from start to stop where nothing is."""
        at, gaps = start, list[tuple[int, int]]()
        for offset, count in [*sorted([*self.taken.items(), *avoid]), (stop, 0)]:
            if min(offset, stop) - at >= size:
                gaps.append((min(offset, stop) - at, at))
            at = max(at, -(-(offset + count) // 16) * 16)
        if not gaps:
            return self._refuse(f"no room for {size} bytes")
        return min(gaps)[1]


def run(model: Model, images: Array, labels: Array, apply: bool, watched: Any = None) -> dict[str, bytes]:
    """The bytes of all that a step gives: loss, logits, gradients, parameters and statistics."""
    with pytest.MonkeyPatch.context() as patch:
        if watched:
            watch(patch, Places(watched.enter, watched.leave), Tape, Work)
        sgd = SGD(0.01, momentum=0.0) if apply else None
        loss, logits, gradients = forward_backward(model, Tape(), images, labels, apply=sgd)
    arrays = {"loss": loss.value, "logits": logits.value, **gradients}
    if watched and isinstance(watched, Block):
        inside = range(watched.base, watched.base + watched.arena.size_bytes)
        assert all(array.__array_interface__["data"][0] in inside for array in arrays.values())
    arrays |= {f"now {p.name}": p.value for p in model.parameters()}
    return {name: array.tobytes() for name, array in arrays.items()}


def restore(model: Model, before: dict[str, Array]) -> None:
    for p in model.parameters():
        p.value = before[p.name].copy()


def in_one_block(
    model: Model,
    n: int,
    resolution: int,
    *,
    apply: bool,
    pixels: bool = False,
    change: Callable[[Arena], Arena] = lambda arena: arena,
) -> tuple[Arena, Block]:
    """Run a step in ordinary memory, then in the block, and compare."""
    images, labels = batch(model, n, resolution)
    if pixels:
        images, model.normalisation = as_pixels(images), NORMALISATIONS["imagenet"]
    before = {p.name: p.value for p in model.parameters()}
    restore(model, before)
    expected = run(model, images.copy(), labels, apply)
    found, made = planned(model, n, resolution, apply, pixels)
    recorded = Recorded()
    restore(model, before)
    with counting(recorded):
        assert run(model, images.copy(), labels, apply, recorded) == expected
    assert len(made) == max(recorded.ends) + 1, "the shadow went through other places"
    block = Block(change(found), made, recorded)
    names = {b.name: number for number, b in enumerate(found.buffers)}
    first = names["vectors"] + 1  # what the caller holds comes right after what is held between steps
    with counting(block):
        for p in model.parameters():
            p.value = block.array(names[p.name], before[p.name])
        inside = block.array(first, images), block.array(first + 1, labels)
        try:
            got = run(model, *inside, apply, block)
        except (MemoryError, SystemError):  # the latter where an array was on its way
            raise AssertionError("; ".join(block.wrong)) from None
    assert got == expected
    unused = [b for number, b in enumerate(found.buffers) if number not in block.used]
    assert {b.kind for b in unused} <= {"scratch"}, "not all that the arena places was there"
    return found, block


@pytest.mark.parametrize(
    ("name", "options", "n", "resolution", "method", "blocks", "apply", "pixels"),
    [
        ("digits_irb", {"dropout": 0.2}, 3, 24, "ft-all", None, False, True),
        ("digits_irb", {}, 3, 24, "mobiletl-exact", 7, True, False),
        ("mobilenet_v3_small", {"width": 0.5}, 2, 64, "mobiletl", 5, True, True),
        ("mobilenet_v3_small", {"width": 0.5}, 2, 64, "mobiletl-recompute", 3, False, False),
        ("mobilenet_v2", {"width": 0.25}, 2, 64, "sparse-update", None, True, False),
        ("digits_irb", {}, 3, 24, "quantised", 4, False, False),
        ("digits_irb", {}, 3, 24, "back-razor", None, True, False),
        ("digits_irb", {}, 3, 24, "slope", 3, True, False),
    ],
)
def test_a_step_in_one_block_gives_the_same_bits(
    name: str, options: Any, n: int, resolution: int, method: str, blocks: int | None, apply: bool, pixels: bool
) -> None:
    net = stir(trained(minitl.networks.get(name, num_classes=10, **options), method, blocks))
    found, block = in_one_block(net, n, resolution, apply=apply, pixels=pixels)
    assert found.ratio <= 1.05
    assert block.peak <= found.lower_bound_bytes <= found.size_bytes < block.peak + 0.05 * block.peak + 2**15


@pytest.mark.parametrize("kind", ["kept", "activation gradients", "parameter gradients"])
def test_an_offset_that_is_wrong_is_seen(kind: str) -> None:
    """Planted: the largest buffer of that kind is moved a little; another is there, or the end of the block."""

    def moved(arena: Arena) -> Arena:
        largest = max((b for b in arena.buffers if b.kind == kind), key=lambda b: b.bytes)
        wrong = replace(largest, offset=largest.offset + 64)
        return replace(arena, buffers=tuple(wrong if b is largest else b for b in arena.buffers))

    net = stir(trained(minitl.networks.digits_irb(num_classes=10), "mobiletl", 2))
    with pytest.raises(AssertionError, match=r"place \d+: .* over"):
        in_one_block(net, 3, 24, apply=False, change=moved)
