"""Numbers for the cases: random, the same on every machine, and never degenerate."""

from __future__ import annotations

import math

import numpy as np

from minitl.arrays import Array, Shape, size


class Source:
    """Random float32 numbers as float64 arrays.

    Only the raw 64-bit words of PCG64 are used, whose stream NumPy guarantees, and exact integer
    arithmetic on them: the sum of four 16-bit numbers, which is nearly normal.
    """

    def __init__(self, seed: int, attempt: int = 0) -> None:
        self._bits = np.random.PCG64([seed, attempt])

    def normal(self, shape: Shape, scale: float = 1.0, mean: float = 0.0) -> Array:
        """About normal, with that standard deviation and mean, within 2 sqrt(3) deviations."""
        words = self._words(size(shape))
        parts = (words[:, None] >> np.uint64(16) * np.arange(4, dtype=np.uint64)) & np.uint64(0xFFFF)
        centred = (parts.astype(np.int64).sum(axis=1) - 2 * 0xFFFF) * (scale * math.sqrt(3.0) / 2**16)
        return _as_float32(centred.reshape(shape) + mean)

    def uniform(self, shape: Shape, low: float, high: float) -> Array:
        """Uniform in [low, high)."""
        parts = (self._words(size(shape)) >> np.uint64(40)).astype(np.int64) * (2.0**-24 * (high - low))
        return _as_float32(low + parts.reshape(shape))

    def steps(self, shape: Shape, limit: int, step: float) -> Array:
        """Multiples of `step` from -limit to limit, exact in every format that a case serves."""
        return (self.integers(shape, 2 * limit + 1) - limit) * step

    def integers(self, shape: Shape, below: int) -> Array:
        """Whole numbers from 0."""
        return (self._words(size(shape)) % np.uint64(below)).astype(np.int64).reshape(shape)

    def _words(self, count: int) -> Array:
        return np.asarray(self._bits.random_raw(count), np.uint64).reshape(-1)


def _as_float32(values: Array) -> Array:
    return values.astype(np.float32).astype(np.float64)


def degenerate(array: Array) -> bool:
    """Whether more than one number are all the same, so that too much would pass for right."""
    return bool(array.size > 1 and (array == array.reshape(-1)[0]).all())
