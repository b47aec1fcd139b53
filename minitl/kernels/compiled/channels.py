"""Kernels of plain loops over channels, which the compiler turns into vectors by itself. Sums are in float64."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer


@cache
def moments(dtype: str) -> Kernel:
    """mean and sum of centred squares (float64) of positions m0..m1 of x (., C): a group's."""
    version, kind, itemsize = sources(), np.dtype(dtype).type, np.dtype(dtype).itemsize

    @kernel
    def run(p: int) -> None:
        x, m0, m1, channels, mean, squares = arguments(p, 6, version)
        rows = carray(pointer(x + m0 * channels * itemsize), (m1 - m0, channels), kind)
        mid, total = carray(pointer(mean), (channels,), np.float64), carray(pointer(squares), (channels,), np.float64)
        for c in range(channels):
            mid[c] = 0
            total[c] = 0
        for m in range(m1 - m0):
            for c in range(channels):
                mid[c] += rows[m, c]
        for c in range(channels):
            mid[c] /= m1 - m0
        for m in range(m1 - m0):
            for c in range(channels):
                d = np.float64(rows[m, c]) - mid[c]
                total[c] += d * d

    return run


@cache
def sums(dtype: str) -> Kernel:
    """total[c] (float64) = sum of x[m, c] over positions m0..m1, in order."""
    version, kind, itemsize = sources(), np.dtype(dtype).type, np.dtype(dtype).itemsize

    @kernel
    def run(p: int) -> None:
        x, m0, m1, channels, total = arguments(p, 5, version)
        rows = carray(pointer(x + m0 * channels * itemsize), (m1 - m0, channels), kind)
        out = carray(pointer(total), (channels,), np.float64)
        for c in range(channels):
            out[c] = 0
        for m in range(m1 - m0):
            for c in range(channels):
                out[c] += rows[m, c]

    return run


@cache
def dots(dtype: str) -> Kernel:
    """total[c] (float64) = sum of x[m, c] z[m, c] over positions m0..m1, in order, the products in float64."""
    version, kind, itemsize = sources(), np.dtype(dtype).type, np.dtype(dtype).itemsize

    @kernel
    def run(p: int) -> None:
        x, z, m0, m1, channels, total = arguments(p, 6, version)
        first, shape = m0 * channels * itemsize, (m1 - m0, channels)
        rows, others = carray(pointer(x + first), shape, kind), carray(pointer(z + first), shape, kind)
        out = carray(pointer(total), (channels,), np.float64)
        for c in range(channels):
            out[c] = 0
        for m in range(m1 - m0):
            for c in range(channels):
                out[c] += np.float64(rows[m, c]) * np.float64(others[m, c])

    return run


@cache
def gate_gradient(dtype: str) -> Kernel:
    """From G (rows, columns), one sample's gy^T x of a gated convolution: what its gate and its weight get.

    of_gate[j] += sum over o of W[o, j] G[o, j] (float64), total[o, j] = or += G[o, j] gate[j] (float64).
    """
    version, kind, itemsize = sources(), np.dtype(dtype).type, np.dtype(dtype).itemsize

    @kernel
    def run(p: int) -> None:
        products, total, rows, columns, weight, step, factor, of_gate, first = arguments(p, 9, version)
        g = carray(pointer(products), (rows, columns), kind)
        sums_ = carray(pointer(total), (rows, columns), np.float64)
        gates, slopes = carray(pointer(factor), (columns,), kind), carray(pointer(of_gate), (columns,), np.float64)
        for o in range(rows):
            w = carray(pointer(weight + o * step * itemsize), (columns,), kind)
            for j in range(columns):
                slopes[j] += np.float64(w[j]) * np.float64(g[o, j])
                here = np.float64(g[o, j]) * np.float64(gates[j])
                sums_[o, j] = here if first else sums_[o, j] + here

    return run


@cache
def divide(dtype: str) -> Kernel:
    """out[c] = total[c] / count, rounded from float64: a mean."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(p: int) -> None:
        total, out, channels, count = arguments(p, 4, version)
        sums_, means = carray(pointer(total), (channels,), np.float64), carray(pointer(out), (channels,), kind)
        for c in range(channels):
            means[c] = sums_[c] / count

    return run


@cache
def move(dtype: str) -> Kernel:
    """`count` numbers from one place to an earlier one, or elsewhere."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(p: int) -> None:
        source, out, count = arguments(p, 3, version)
        values, to = carray(pointer(source), (count,), kind), carray(pointer(out), (count,), kind)
        for i in range(count):
            to[i] = values[i]

    return run
