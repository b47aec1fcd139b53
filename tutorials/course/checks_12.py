"""Checks of tutorial 12, fast."""

from __future__ import annotations

from typing import Any

import numpy as np

from course.attempt import Attempt
from course.case import Array, Case
from course.exercise import exercise

Ops = list[dict[str, Any]]


def draw_chain(case: Case) -> tuple[int, Ops]:
    """The first input's bytes, and a chain in which some inputs are kept and some masks written."""
    ops = [
        {
            "out": int(case.rng.integers(100, 900)) * 8,
            "weights": int(case.rng.integers(1, 50)) * 4,
            "mask": int(case.rng.integers(1, 90)) * 8 if i % 3 == 1 else 0,
            "keeps_input": i % 3 != 1,
        }
        for i in range(int(case.rng.integers(4, 8)))
    ]
    return int(case.rng.integers(100, 900)) * 8, ops


def moved(first: int, ops: Ops, fused: bool, mistake: str = "") -> int:
    """Bytes moved, with one usual mistake."""
    total, before = 0, first
    for i, op in enumerate(ops):
        total += 0 if mistake == "weights" else op["weights"]
        total += op["mask"] if mistake == "bits" else op["mask"] // 8 if mistake != "masks" else 0
        if not fused:
            total += (0 if mistake == "read" else before) + (0 if mistake == "write" else op["out"])
        elif i and op["keeps_input"] and mistake != "kept":
            total += before * (2 if mistake == "twice" else 1)
        elif not i and op["keeps_input"] and mistake == "first":
            total += before
        before = op["out"]
    ends = (0 if mistake == "in" else first) + (0 if mistake == "out" else before)
    return total + (ends if fused else 0)


MOVED = {
    "weights": "The weights are missing: each operation reads its own, fused or not.",
    "read": "You count what is written, but not what is read: each input has to come in first.",
    "write": "You count what is read, but not what is written.",
    "bits": "A mask of 8 bits takes 1 byte, not 8.",
    "masks": "The masks are missing: they are kept, so they must be written.",
    "kept": "Fused, the inner inputs that are kept must still be written, once.",
    "twice": "Fused, a kept input is written once; nobody reads it in the forward pass.",
    "first": "The chain's own input is in memory already: read it, but do not write it again.",
    "in": "Fused, the chain's input still has to be read.",
    "out": "Fused, the last output still has to be written.",
}


@exercise(
    "12a",
    hints=(
        "Both ways move all weights and masks (mask // 8 bytes). Op by op add each operation's input and output. "
        "Fused add the first input, the last output, and the kept inputs of all operations but the first.",
        "inputs = [first] + [op['out'] for op in ops[:-1]]; then zip(inputs, ops) gives each operation its input.",
    ),
)
def bytes_moved(case: Case, traffic: Attempt) -> None:
    """Op by op, then fused."""
    first, ops = draw_chain(case)
    for fused in (False, True):
        right = moved(first, ops, fused)
        got = traffic(first, [dict(op) for op in ops], fused)
        case.need(
            isinstance(got, int | float | np.number),
            f"It should return a number of bytes, and gives {got!r}.",
        )
        for mistake, sentence in MOVED.items():
            case.need(got == right or got != moved(first, ops, fused, mistake), sentence)
        way = "fused" if fused else "op by op"
        case.need(
            got != moved(first, ops, not fused), f"{way}: these are the bytes of the other way."
        )
        case.need(got == right, f"{way}: {got:,}, expected {right:,}: {_parts(first, ops, fused)}.")


def _parts(first: int, ops: Ops, fused: bool) -> str:
    """The bytes that move, one kind after the other."""
    weights, masks = (sum(op["weights"] for op in ops), sum(op["mask"] // 8 for op in ops))
    both, inputs = f"weights {weights:,}, masks {masks:,}", [first] + [op["out"] for op in ops[:-1]]
    if not fused:
        return f"{both}, inputs {sum(inputs):,}, outputs {sum(op['out'] for op in ops):,}"
    kept = sum(x for x, op in list(zip(inputs, ops, strict=True))[1:] if op["keeps_input"])
    return f"{both}, the first input {first:,}, kept inputs {kept:,}, the last output {ops[-1]['out']:,}"


@exercise(
    "12b",
    hints=(
        "What is left of the cache once the weights are in it? And how much of it does one image take?",
        "(cache - weights) // (2 * inner), held between 1 and batch with min and max.",
    ),
)
def images_that_fit(case: Case, images_at_a_time: Attempt) -> None:
    """Inside, at equality, and at both ends."""
    sizes = [
        tuple(int(case.rng.integers(low, 9 * low)) for low in (1000, 3000, 90_000))
        for _ in range(30)
    ]
    sizes += [
        (i, w, w + 2 * i * n + short) for i, w, _ in sizes[:6] for n in (2, 5) for short in (0, -1)
    ]
    sizes += [(1000, 5000, 4000), (1000, 5000, 10**7), (1000, 5000, 5500)]
    batch = 16
    got = [images_at_a_time(*size, batch) for size in sizes]

    def all_of(count: Any) -> list[Any]:
        return [count(*size) for size in sizes]

    def held(n: Any) -> Any:
        return max(1, min(batch, n))

    right = all_of(lambda i, w, c: held((c - w) // (2 * i)))
    usual = {
        "The weights take room in the cache too.": all_of(lambda i, w, c: held(c // (2 * i))),
        "An operation's input and output are there together: 2 maps per image.": all_of(
            lambda i, w, c: held((c - w) // i)
        ),
        "The weights are there once, not once per image.": all_of(
            lambda i, w, c: held(c // (2 * i + w))
        ),
        "Round down: a part of an image does not fit.": all_of(
            lambda i, w, c: held(-(-(c - w) // (2 * i)))
        ),
        "At least one image has to be run, whether it fits or not.": all_of(
            lambda i, w, c: min(batch, max(0, (c - w) // (2 * i)))
        ),
        "At least one image has to be run; yours can be less than none.": all_of(
            lambda i, w, c: min(batch, (c - w) // (2 * i))
        ),
        "There are only `batch` images.": all_of(lambda i, w, c: max(1, (c - w) // (2 * i))),
    }
    for sentence, wrong in usual.items():
        case.need(got == right or got != wrong, sentence)
    for found, expected, (inner, weights, cache) in zip(got, right, sizes, strict=True):
        case.need(
            found == expected,
            f"inner = {inner}, weights = {weights}, cache = {cache}, batch = {batch}: {found}, expected {expected}.",
        )
    case.need(
        all(isinstance(n, int | np.integer) for n in got), "It should return whole numbers: use //."
    )


@exercise(
    "12c",
    hints=(
        "range(0, len(x), tile) gives the starts, and x[start : start + tile] ends by itself where x ends.",
        "np.concatenate([f(x[start : start + tile]) for start in range(0, len(x), tile)]).",
    ),
)
def tile_by_tile(case: Case, in_tiles: Attempt) -> None:
    """Batches that are no multiple of the tile, and smaller than it."""
    _, height, width, c = case.map_shape()
    for n, tile in ((7, 3), (6, 3), (2, 5)):
        x, w = case.normal(n, height, width, c), case.normal(c, 4)
        seen: list[int] = []

        def f(part: Array, seen: list[int] = seen, w: Array = w) -> Array:
            seen.append(len(part))
            return part[:, ::2] @ w

        got = in_tiles(f, x, tile)
        right = x[:, ::2] @ w
        full = n // tile * tile
        case.need(seen, "f is never called.")
        case.need(
            max(seen) <= tile, f"f was given {max(seen)} images at once, with a tile of {tile}."
        )
        case.need(
            not isinstance(got, list | tuple),
            "It returns the tiles; put them together to one array.",
        )
        likely = {
            "the last tile is smaller, and is lost.": lambda r=right, m=full: r[:m],
            "the tiles are put together along another axis than that of the images.": (
                lambda r=right, t=tile: (
                    np.concatenate([r[a : a + t] for a in range(0, len(r), t)], axis=1)
                    if len(r) % t == 0
                    else r[:0]
                )
            ),
        }
        case.need(
            not isinstance(got, np.ndarray) or full == n or len(got) != full,
            "The last tile is smaller, and is lost.",
        )
        case.same("the result", got, right, likely)
        case.need(
            sum(seen) == n,
            f"f was given {sum(seen)} images in all, for a batch of {n}: tiles overlap.",
        )
