"""Checks of tutorial 1, one operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course.attempt import Attempt
from course.case import Case
from course.exercise import exercise

Array = Any


@exercise(
    "1a",
    hints=(
        "Write the slope with y alone: differentiate 1 / (1 + exp(-x)) and look for y and 1 - y in it.",
        'The slope is y (1 - y). So forward does kept["y"] = y, and backward multiplies gy by that slope.',
    ),
)
def sigmoid_pair(case: Case, sigmoid: Attempt, sigmoid_backward: Attempt) -> None:
    """Values first, then what is kept: y itself and nothing else."""
    x, gy, kept = case.normal(*(shape := case.map_shape())), case.normal(*shape), dict[str, Any]()
    y = 1 / (1 + np.exp(-x))
    got = sigmoid(x, kept)
    case.same(
        "y",
        got,
        y,
        {
            "this falls where the sigmoid rises: mind the sign of x in exp(-x).": lambda: 1 - y,
            "this is the slope of the sigmoid, not the sigmoid.": lambda: y * (1 - y),
        },
    )
    case.same(
        "gx",
        sigmoid_backward(kept, gy),
        gy * y * (1 - y),
        {
            "this is the slope of the operation; backward multiplies it by gy.": lambda: (
                y * (1 - y)
            ),
            "the slope is y (1 - y); the factor 1 - y is missing.": lambda: gy * y,
            "the slope is y (1 - y); yours has 1 + y.": lambda: gy * y * (1 + y),
            "the sign is the other way round: the sigmoid rises, so its slope, y (1 - y), is above 0.": (
                lambda: gy * y * (y - 1)
            ),
        },
    )
    need_y_alone(case, kept, got, x)


def need_y_alone(case: Case, kept: dict[str, Any], y: Array, x: Array) -> None:
    """The values are right; is the memory?"""
    arrays = [array for array in kept.values() if isinstance(array, np.ndarray) and array.size > 1]
    case.need(
        arrays,
        "Backward gives the right values with nothing in `kept`: it must not look elsewhere.",
    )
    case.need(
        len(arrays) == 1,
        f"The values are right; you keep {len(arrays)} arrays where 1 is enough: {len(arrays)} x {x.nbytes:,} bytes.",
    )
    case.need(
        not np.array_equal(arrays[0], x),
        "The values are right, but you keep x and make the exponential again: the slope is y (1 - y), so y is enough.",
    )
    case.need(
        np.shares_memory(arrays[0], y),
        "The values are right, but you keep an extra array. Keep y itself: the next operation keeps it anyway, so it "
        "costs nothing more.",
    )


def forward_of(function: Callable[[Array], Array]) -> Callable[..., Array]:
    """The operation that keeps its input and gives function(x)."""

    def forward(x: Array, kept: dict[str, Any]) -> Array:
        kept["x"] = x
        return function(x)

    return forward


def backward_of(slope: Callable[[Array], Array]) -> Callable[..., Array]:
    """Its backward, for an operation element by element."""
    return lambda kept, gy: gy * slope(kept["x"])


def wrong_at_17(kept: dict[str, Any], gy: Array) -> Array:
    """The right gradient of the square, but for one element."""
    gx = gy * 2 * kept["x"]
    gx.flat[17] += np.abs(gx).max()
    return gx


@exercise(
    "1b",
    hints=(
        "Along a random direction, as in `slopes`. The two numbers are sums: with what do you compare their "
        "difference, so that tiny gradients are checked as strictly as large ones?",
        "`abs(by_backward - by_differences) < 1e-6 * np.linalg.norm(gx) * np.linalg.norm(t)`, with a central "
        "difference and d = 1e-5.",
    ),
)
def gradient_checker(case: Case, check_gradient: Attempt) -> None:
    """Four right gradients (the last along many directions), five wrong ones."""
    x, m = case.rng.standard_normal((5, 21)), case.rng.standard_normal((5, 5))
    square, twice = forward_of(np.square), backward_of(lambda x: 2 * x)
    tiny, positive = forward_of(lambda x: 1e-10 * x**2), forward_of(np.abs)
    steps: list[Array] = []

    def passes(forward: Callable[..., Array], backward: Callable[..., Array]) -> bool:
        def watched(at: Array, kept: dict[str, Any]) -> Array:
            steps.append(at - x)
            return forward(at, kept)

        got = check_gradient(
            watched, backward, x.copy(), np.random.default_rng(case.rng.integers(2**32))
        )
        case.need(
            isinstance(got, bool | np.bool_),
            f"It returns {type(got).__name__}, expected True or False.",
        )
        return bool(got)

    straight = passes(forward_of(lambda x: 3 * x), backward_of(lambda x: np.full_like(x, 3)))
    case.need(straight, "You reject the right gradient of y = 3 x.")

    def accept(name: str, right: bool) -> None:
        one_sided = np.abs(np.sum(steps, axis=0)).max() > 1e-3 * np.abs(steps).max()
        why = (
            "is your difference one-sided? Its error shrinks like d, that of a central one like d^2."
            if one_sided
            else "a fixed tolerance fails where gradients are large, and <gx, t> can be small by chance. Compare with "
            "|gx| |t|."
        )
        case.need(right, f"You reject the right gradient of {name}, but not that of y = 3 x: {why}")

    accept("y = x^2", passes(square, twice))
    accept("y = 1e-10 x^2", passes(tiny, backward_of(lambda x: 2e-10 * x)))
    mixed = forward_of(lambda x: m @ x)
    for problem, wrong in {
        "You accept a gradient without the 2 of the square.": passes(
            square, backward_of(lambda x: x)
        ),
        "You accept a factor of 2 where gradients are tiny: compare the difference with their size, |gx| |t|.": passes(
            tiny, backward_of(lambda x: 1e-10 * x)
        ),
        "The fault at element 17 went by: let all elements take part, along a random direction.": passes(
            square, wrong_at_17
        ),
        "You accept a gradient through the matrix where it should go through its transpose.": passes(
            mixed, lambda kept, gy: m @ gy
        ),
        "You accept a gradient of |x| that is right only where x > 0.": passes(
            positive, lambda kept, gy: gy
        ),
    }.items():
        case.need(not wrong, problem)
    wave = forward_of(lambda x: np.sin(100 * x)), backward_of(lambda x: 100 * np.cos(100 * x))
    accept("y = sin(100 x)", all(passes(*wave) for _ in range(8)))


@exercise(
    "1c",
    hints=(
        "Positions 0, 8, 16, ... go to the lowest bit of bytes 0, 1, 2, ...; so `bits[0::8]` is one step. Fill up "
        "with zeros first, to a multiple of 8 rows.",
        "for bit in range(8): packed |= padded[bit::8] << bit, with uint8 arrays; and back: "
        "bits[bit::8] = packed >> bit & 1.",
    ),
)
def packing(case: Case, pack: Attempt, unpack: Attempt, packed_bytes: Attempt) -> None:
    """With a last byte that is filled up, and without."""
    for m in (case.rng.choice([11, 13, 21, 98]), case.rng.choice([16, 24])):
        need_packing(case, int(m), int(case.rng.choice([5, 7, 9])), pack, unpack, packed_bytes)


def need_packing(
    case: Case, m: int, c: int, pack: Attempt, unpack: Attempt, packed_bytes: Attempt
) -> None:
    """pack, then unpack, then the count, for M positions and C channels."""
    bits = case.rng.random((m, c)) < 0.5
    packed = np.packbits(bits, axis=0, bitorder="little")
    case.same(
        "packed",
        pack(bits),
        packed,
        {
            "bit order: the first position is the lowest bit.": lambda: np.packbits(bits, axis=0),
            "packed along the channels: neighbouring bits must be neighbouring positions of the same channel.": (
                lambda: np.packbits(bits, axis=1, bitorder="little")
            ),
            f"{m} positions take {len(packed)} bytes: the last one is filled with zeros, not dropped.": (
                lambda: packed[: m // 8]
            ),
            "packed all channels as one row: each channel has bytes of its own.": (
                lambda: np.packbits(bits, axis=None, bitorder="little")
            ),
        },
    )
    case.same(
        "unpacked",
        unpack(packed, m),
        bits,
        {
            "the bits that fill the last byte are there too: return the first `count` only.": (
                lambda: np.unpackbits(packed, axis=0, bitorder="little").astype(bool)
            ),
            "bit order: the lowest bit is the first position.": (
                lambda: np.unpackbits(packed, axis=0, count=m).astype(bool)
            ),
        },
    )
    case.same(
        "the number of bytes",
        packed_bytes(m, c),
        packed.nbytes,
        {
            "the last byte of each channel counts whole: round up before you multiply.": lambda: (
                -(-m * c // 8)
            ),
            "the last byte counts too: round up.": lambda: m // 8 * c,
            "a channel's last byte is rounded up, not down.": lambda: m * c // 8,
            f"{m} positions fill {m // 8} bytes: there is no last byte to fill up.": lambda: (
                (m // 8 + 1) * c
            ),
            "that is one channel's.": lambda: -(-m // 8),
            "a byte has 8 bits: divide by 8.": lambda: 8 * m * c,
            "a byte has 8 bits.": lambda: m * c,
            "a number of bytes is a whole number: round up, per channel.": lambda: m * c / 8,
        },
    )
