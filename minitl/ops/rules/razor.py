"""A kept array as its larger half: per sample exactly k values, and one bit per place (after Back Razor).

Jiang et al., NeurIPS 2022. Of a sample of n values the k = n - n // 2 of largest magnitude are kept, the others
count as 0 for the weight gradient. Back Razor itself keeps all that are at least the k-th magnitude: after
a ReLU with more than half zeros that is everything, and a mask besides. Here ties go by index (ours), so
the bytes follow from the shape: ceil(n / 8) + k numbers per sample.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.saved import Kept, Saved


def kept(shape: Shape, dtype: str, needed_for: tuple[str, ...]) -> tuple[Kept, ...]:
    """The mask and the values of an array of that shape."""
    n, count = shape[0], size(shape[1:])
    values, bits = (n, count - count // 2), 8 * np.dtype(dtype).itemsize
    return (
        Kept("mask", shape, "uint8", 1, n * -(-count // 8), needed_for),
        Kept("values", values, dtype, bits, nbytes(values, dtype), needed_for),
    )


def keep(saved: Saved, x: Array, needed_for: tuple[str, ...]) -> None:
    """Keep the larger half of each sample."""
    flat = x.reshape(len(x), -1)
    count = flat.shape[1] - flat.shape[1] // 2
    mask = np.empty((len(x), -(-flat.shape[1] // 8)), np.uint8)
    values = np.empty((len(x), count), x.dtype)
    for n, sample in enumerate(flat):
        flags = _larger(sample, count)
        mask[n], values[n] = np.packbits(flags, bitorder="little"), sample[flags]
    saved.keep("mask", mask, needed_for, codes=(x.shape, 1))
    saved.keep("values", values, needed_for)


def _larger(sample: Array, count: int) -> Array:
    """Whether each number is among the `count` of largest magnitude; what is no number counts as infinite."""
    sizes = np.fmin(np.abs(sample), np.inf)
    least = np.partition(sizes, sizes.size - count)[sizes.size - count]
    flags: Array = sizes > least
    flags[np.flatnonzero(sizes == least)[: count - np.count_nonzero(flags)]] = True
    return flags


def read(saved: Saved) -> Array:
    """The array with zeros in place of what was not kept."""
    shape, values = saved.buffers["mask"].kept.shape, saved["values"]
    x = np.zeros(shape, values.dtype)
    for row, mask, mine in zip(x.reshape(len(x), -1), saved["mask"], values, strict=True):
        row[np.unpackbits(mask, count=row.size, bitorder="little").view(bool)] = mine
    return x
