"""A kept array as its larger half: per sample exactly k values, and one bit per place (after Back Razor).

Jiang et al., NeurIPS 2022. Of a sample of n values the k = n - n // 2 of largest magnitude are kept, the others
count as 0 for the weight gradient. Back Razor itself keeps all that are at least the k-th magnitude: after
a ReLU with more than half zeros that is everything, and a mask besides. Here ties go by index (ours), so
the bytes follow from the shape: ceil(n / 8) + k numbers per sample.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import keeps_array
from minitl.ops.room import Room, made
from minitl.ops.rules.encoding import Encoding
from minitl.saved import Kept, Saved


def kept(shape: Shape, dtype: str) -> tuple[Kept, ...]:
    """The mask and the values of an array of that shape."""
    n, count = shape[0], size(shape[1:])
    mask = Kept("mask", shape, "uint8", 1, n * -(-count // 8), GRAD_WEIGHT)
    return mask, keeps_array("values", (n, count - count // 2), dtype, GRAD_WEIGHT)


def encoding_room(shape: Shape, dtype: str) -> Room:
    """What encoding such an array takes in passing: a sample's magnitudes, two flags a value, and the values chosen."""
    count = size(shape[1:])
    return [((count,), dtype), ((count,), "bool"), ((count,), "bool"), ((count - count // 2,), dtype)]


def decoding_room(shape: Shape, dtype: str) -> Room:
    """What decoding takes: a flag for each value of a sample."""
    return [((size(shape[1:]),), "bool")]


def keep(saved: Saved, x: Array, seed: Sequence[int]) -> None:
    """Keep the larger half of each sample."""
    flat = x.reshape(len(x), -1)
    count = flat.shape[1] - flat.shape[1] // 2
    mask = np.empty((len(x), -(-flat.shape[1] // 8)), np.uint8)
    values = np.empty((len(x), count), x.dtype)
    sizes, flags, ties = made(encoding_room(x.shape, x.dtype.name)[:3])
    for n, sample in enumerate(flat):
        _choose(sample, count, sizes, flags, ties)
        mask[n] = np.packbits(flags, bitorder="little")
        values[n] = sample[flags]  # makes the last array of the room
    saved.keep("mask", mask, GRAD_WEIGHT, codes=(x.shape, 1))
    saved.keep("values", values, GRAD_WEIGHT)


def _choose(sample: Array, count: int, sizes: Array, flags: Array, ties: Array) -> None:
    """Flag the `count` numbers of largest magnitude, of equal ones the first; what is no number counts as infinite."""
    np.fmin(np.abs(sample, out=sizes), np.inf, out=sizes)
    sizes.partition(sizes.size - count)
    least = sizes[sizes.size - count]
    np.fmin(np.abs(sample, out=sizes), np.inf, out=sizes)
    np.greater(sizes, least, out=flags)
    np.equal(sizes, least, out=ties)
    more = count - np.count_nonzero(flags)
    stop = bisect_left(range(sizes.size), more, key=lambda stop: np.count_nonzero(ties[:stop]))
    flags[:stop] |= ties[:stop]


def restore(saved: Saved, dtype: np.dtype[np.floating]) -> Array:
    """The array with zeros in place of what was not kept."""
    x = np.zeros(saved.buffers["mask"].kept.shape, dtype)
    for row, mask, mine in zip(x.reshape(len(x), -1), saved["mask"], saved["values"], strict=True):
        row[np.unpackbits(mask, count=row.size, bitorder="little").view(bool)] = mine
    return x


ENCODINGS = {"razor": Encoding(keep, restore, kept, encoding_room, decoding_room)}
