"""The kernel that turns pixels into numbers (see `minitl.pixels`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer


@cache
def look_up(dtype: str) -> Kernel:
    """out[m, c] = table[x[m, c], c] for `count` positions of uint8 x (., C) and a table (256, C)."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(p: int) -> None:
        x, table, out, count, channels = arguments(p, 5, version)
        pixels = carray(pointer(x), (count, channels), np.uint8)
        numbers = carray(pointer(table), (256, channels), kind)
        result = carray(pointer(out), (count, channels), kind)
        for m in range(count):
            for c in range(channels):
                result[m, c] = numbers[pixels[m, c], c]

    return run
