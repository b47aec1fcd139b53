"""Kernels of optimizer updates (see `kernels.update`): elements i0..i1; the optimizer's numbers as float64.

Each writes how many results are not finite to `bad`, and the results themselves only where `write` is set.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer, store64


@cache
def descend(dtype: str) -> Kernel:
    """p <- p - lr (factor g + decay p)."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(at: int) -> None:
        p_at, g_at, numbers_at, bad, i0, i1, write = arguments(at, 7, version)
        p, g = carray(pointer(p_at), (i1,), kind), carray(pointer(g_at), (i1,), kind)
        numbers = carray(pointer(numbers_at), (3,), np.float64)
        rate, clip, shrink = kind(numbers[0]), kind(numbers[1]), kind(numbers[2])
        wrong = 0
        for i in range(i0, i1):
            new = p[i] - rate * (clip * g[i] + shrink * p[i])
            wrong += not np.isfinite(new)
            if write:
                p[i] = new
        store64(bad, wrong)

    return run


@cache
def momentum(dtype: str) -> Kernel:
    """velocity <- keep velocity + h with h = factor g + decay p, then p <- p - lr (direct h + share velocity)."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(at: int) -> None:
        p_at, g_at, velocity_at, numbers_at, bad, i0, i1, write = arguments(at, 8, version)
        p, g = carray(pointer(p_at), (i1,), kind), carray(pointer(g_at), (i1,), kind)
        velocity = carray(pointer(velocity_at), (i1,), kind)
        numbers = carray(pointer(numbers_at), (6,), np.float64)
        rate, clip, kept = kind(numbers[0]), kind(numbers[1]), kind(numbers[2])
        shrink, straight, carried = kind(numbers[3]), kind(numbers[4]), kind(numbers[5])
        wrong = 0
        for i in range(i0, i1):
            h = clip * g[i] + shrink * p[i]
            v = kept * velocity[i] + h
            new = p[i] - rate * (straight * h + carried * v)  # not finite where v is not, even at rate 0
            wrong += not np.isfinite(new)
            if write:
                velocity[i] = v
                p[i] = new
        store64(bad, wrong)

    return run


@cache
def adam(dtype: str) -> Kernel:
    """mean and square move towards h = factor g + decay p and h^2; p <- remain p - lr mean / (sqrt(square) + eps)."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(at: int) -> None:
        p_at, g_at, mean_at, square_at, numbers_at, bad, i0, i1, write = arguments(at, 9, version)
        p, g = carray(pointer(p_at), (i1,), kind), carray(pointer(g_at), (i1,), kind)
        mean, square = carray(pointer(mean_at), (i1,), kind), carray(pointer(square_at), (i1,), kind)
        numbers = carray(pointer(numbers_at), (9,), np.float64)
        rate, clip, small, shrink = kind(numbers[0]), kind(numbers[1]), kind(numbers[2]), kind(numbers[3])
        keep1, add1, keep2, add2 = kind(numbers[4]), kind(numbers[5]), kind(numbers[6]), kind(numbers[7])
        rest, one = kind(numbers[8]), kind(1)
        wrong = 0
        for i in range(i0, i1):
            h = clip * g[i] + shrink * p[i]
            m = keep1 * mean[i] + add1 * h
            s = keep2 * square[i] + add2 * h * h  # not finite where m is not
            divisor = np.sqrt(s) + small
            new = rest * p[i] - rate * m / (divisor if divisor > 0 else one)
            wrong += not (np.isfinite(new) and np.isfinite(s) and divisor > 0)
            if write:
                mean[i] = m
                square[i] = s
                p[i] = new
        store64(bad, wrong)

    return run
