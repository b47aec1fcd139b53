"""Kernels that add up (see `kernels.sums`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer


@cache
def join_groups(dtype: str) -> Kernel:
    """total (float64) = chain if it is the first, else total + chain."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def join(p: int) -> None:
        chain, total, count, first = arguments(p, 4, version)
        values, sums = carray(pointer(chain), (count,), kind), carray(pointer(total), (count,), np.float64)
        for i in range(count):
            sums[i] = values[i] if first else sums[i] + values[i]

    return join


@cache
def round_sum(dtype: str, straight: bool) -> Kernel:
    """out[o row_step + j column_step] = total (rows, columns), rounded from float64.

    `straight` says that column_step is 1.
    """
    version, kind, itemsize = sources(), np.dtype(dtype).type, np.dtype(dtype).itemsize

    @kernel
    def finish(p: int) -> None:
        total, rows, columns, out, row_step, column_step = arguments(p, 6, version)
        sums = carray(pointer(total), (rows, columns), np.float64)
        if straight:
            for o in range(rows):
                row = carray(pointer(out + o * row_step * itemsize), (columns,), kind)
                for j in range(columns):
                    row[j] = sums[o, j]
        else:
            for j in range(columns):
                column = carray(pointer(out + j * column_step * itemsize), (rows * row_step,), kind)
                for o in range(rows):
                    column[o * row_step] = sums[o, j]

    return finish
