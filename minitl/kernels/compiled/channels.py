"""Sums over positions per channel, in float64, in tiles; and what a gate and its weight get."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.arrays import itemsize
from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer, store64
from minitl.kernels.compiled.stages import add_dots, add_rows, add_squares
from minitl.kernels.compiled.tile import ROWS, read, wide, zeros
from minitl.kernels.target import lanes

SUMS, DOTS, SQUARES = 0, 1, 2  # what is added up


@cache
def totals(dtype: str, what: int, masked: bool) -> Kernel:
    """total[c] (float64) = the sum, in order, over positions m0..m1: of x[m, c], x[m, c] z[m, c] or (x[m, c] - z[c])^2.

    The terms are made in float64; there z is, too.
    """
    version, bits, mask, step = sources(), 8 * itemsize(dtype), int(masked), lanes(dtype)

    @kernel
    def run(p: int) -> None:
        x, z, m0, m1, channels, total = arguments(p, 6, version)
        w, whole = wide(1, bits, mask), m1 - (m1 - m0) % ROWS
        for c in range(channels):
            store64(total + 8 * c, 0)

        def tiles(rows: int, m: int) -> None:
            for c in range(0, channels, step):
                at, left = m * channels + c, channels - c
                t = read(zeros(rows, w), x, at, channels, left)
                if what == SUMS:
                    add_rows(t, total, c, left)
                elif what == DOTS:
                    add_dots(t, read(zeros(rows, w), z, at, channels, left), total, c, left)
                else:
                    add_squares(t, z, total, c, left)

        for m in range(m0, whole, ROWS):
            tiles(ROWS, m)
        for m in range(whole, m1):
            tiles(1, m)

    return run


@cache
def gate_gradient(dtype: str) -> Kernel:
    """From G (rows, columns), one sample's gy^T x of a gated convolution: what its gate and its weight get.

    of_gate[j] += sum over o of W[o, j] G[o, j] (float64), total[o, j] = or += G[o, j] gate[j] (float64).
    """
    version, kind, size = sources(), np.dtype(dtype).type, itemsize(dtype)

    @kernel
    def run(p: int) -> None:
        products, total, rows, columns, weight, step, factor, of_gate, first = arguments(p, 9, version)
        g = carray(pointer(products), (rows, columns), kind)
        sums_ = carray(pointer(total), (rows, columns), np.float64)
        gates, slopes = carray(pointer(factor), (columns,), kind), carray(pointer(of_gate), (columns,), np.float64)
        for o in range(rows):
            w = carray(pointer(weight + o * step * size), (columns,), kind)
            for j in range(columns):
                slopes[j] += np.float64(w[j]) * np.float64(g[o, j])
                here = np.float64(g[o, j]) * np.float64(gates[j])
                sums_[o, j] = here if first else sums_[o, j] + here

    return run
