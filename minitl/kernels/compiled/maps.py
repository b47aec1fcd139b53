"""Kernels that make a map of one or two others, which it may be written over: sums, factors and shifts per channel.

In tiles: the compiler makes no vectors of a loop whose result may be what it reads.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments
from minitl.kernels.compiled.stages import plus, times
from minitl.kernels.compiled.tile import ROWS, fill, read, store, wide, zeros
from minitl.kernels.target import target


@cache
def combine(dtype: str, masked: bool) -> Kernel:
    """out = (a gy + b x_hat) + shift per channel, for positions m0..m1."""
    version, bits, mask = sources(), 8 * np.dtype(dtype).itemsize, int(masked)
    lanes = target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        gy, x_hat, out, m0, m1, channels, a, b, shift = arguments(p, 9, version)
        w, whole = wide(1, bits, mask), m1 - (m1 - m0) % ROWS

        def tiles(rows: int, m: int) -> None:
            for c in range(0, channels, lanes):
                at, left = m * channels + c, channels - c
                t = times(read(zeros(rows, w), gy, at, channels, left), a, c, left)
                t = plus(t, times(read(zeros(rows, w), x_hat, at, channels, left), b, c, left))
                store(plus(t, fill(zeros(rows, w), shift, c, left)), out, at, channels, left)

        for m in range(m0, whole, ROWS):
            tiles(ROWS, m)
        for m in range(whole, m1):
            tiles(1, m)

    return run


@cache
def gate(dtype: str, scaled: bool, added: bool, masked: bool) -> Kernel:
    """out = x (factor) (+ more) per channel for positions m0..m1, of one sample: `factor` and `more` are its own."""
    version, bits, mask = sources(), 8 * np.dtype(dtype).itemsize, int(masked)
    lanes = target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        x, out, m0, m1, channels, factor, more = arguments(p, 7, version)
        w, whole = wide(1, bits, mask), m1 - (m1 - m0) % ROWS

        def tiles(rows: int, m: int) -> None:
            for c in range(0, channels, lanes):
                at, left = m * channels + c, channels - c
                t = read(zeros(rows, w), x, at, channels, left)
                if scaled:
                    t = times(t, factor, c, left)
                if added:
                    t = plus(t, fill(zeros(rows, w), more, c, left))
                store(t, out, at, channels, left)

        for m in range(m0, whole, ROWS):
            tiles(ROWS, m)
        for m in range(whole, m1):
            tiles(1, m)

    return run


@cache
def add(dtype: str) -> Kernel:
    """out = a + b, `count` numbers."""
    version, bits = sources(), 8 * np.dtype(dtype).itemsize
    lanes = target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        a, b, out, count = arguments(p, 4, version)
        w, last = wide(1, bits, 0), wide(1, bits, 1)
        whole = count - count % (ROWS * lanes)
        for i in range(0, whole, ROWS * lanes):
            t = read(zeros(ROWS, w), a, i, lanes, lanes)
            store(plus(t, read(zeros(ROWS, w), b, i, lanes, lanes)), out, i, lanes, lanes)
        for i in range(whole, count, lanes):
            s = read(zeros(1, last), a, i, lanes, count - i)
            store(plus(s, read(zeros(1, last), b, i, lanes, count - i)), out, i, lanes, count - i)

    return run
