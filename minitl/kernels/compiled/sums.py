"""Kernels that add up (see `kernels.sums`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer


@cache
def clear(dtype: str) -> Kernel:
    """`count` numbers are +0."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def fill(p: int) -> None:
        start, count = arguments(p, 2, version)
        values = carray(pointer(start), (count,), kind)
        for i in range(count):
            values[i] = 0

    return fill


@cache
def join_groups(dtype: str) -> Kernel:
    """total (float64) = chain if it is the first, else total + chain."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def join(p: int) -> None:
        chain, total, count, first = arguments(p, 4, version)
        values, sums = carray(pointer(chain), (count,), kind), carray(pointer(total), (count,), np.float64)
        if first:
            for i in range(count):
                sums[i] = values[i]
        else:
            for i in range(count):
                sums[i] += values[i]

    return join
