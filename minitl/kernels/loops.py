"""Exact fused multiply-adds of arrays: what the plain loops that define each sum are written with.

    fma(a, b, c) = a b + c, rounded once

float32: a b is exact in float64; the sum is rounded to odd there, and then to float32 (Boldo &
Melquiond 2008, DOI 10.1109/TC.2007.70819; computing in float64 and rounding would round twice). float64: the
product as an unevaluated sum of two numbers (Dekker 1971, Veltkamp's splitting), the rest alike;
exact unless a product leaves the range of normal numbers.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array

SPLITTER = 134217729.0  # 2^27 + 1


def fma(a: Array, b: Array, c: Array) -> Array:
    """a b + c of float32 or float64 arrays that broadcast, rounded once."""
    with np.errstate(invalid="ignore", over="ignore"):
        if c.dtype == np.float32:
            product = np.multiply(a, b, dtype=np.float64)
            return _sum_to_odd(product, c.astype(np.float64)).astype(np.float32)
        high, low = _two_product(a, b)
        t, t_low = _two_sum(c, low)
        v, v_low = _two_sum(high, t)
        exact = np.isfinite(v_low + t_low)
        return np.where(exact, v + _sum_to_odd(t_low, v_low), a * b + c)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b and its rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a b and its rounding error."""
    a, b = np.broadcast_arrays(a, b)
    product = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Array) -> tuple[Array, Array]:
    scaled = SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high


def _sum_to_odd(a: Array, b: Array) -> Array:
    """a + b in float64, rounded to the neighbour whose last bit is odd where it is not exact."""
    total, error = _two_sum(a, b)
    bits = total.view(np.int64)
    inexact = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    outwards = (error > 0) == (total > 0)
    return np.where(inexact, bits + np.where(outwards, 1, -1), bits).view(np.float64)
