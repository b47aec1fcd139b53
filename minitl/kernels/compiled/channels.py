"""Sums over positions per channel, in float64, in tiles; and small loops that the compiler makes vectors of."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer
from minitl.kernels.compiled.stages import add_dots, add_rows, add_squares
from minitl.kernels.compiled.tile import ROWS, read, wide, zeros
from minitl.kernels.target import target


@cache
def moments(dtype: str, masked: bool) -> Kernel:
    """mean and sum of centred squares (float64) of positions m0..m1 of x (., C): a group's."""
    version, rows, bits, mask = sources(), ROWS, 8 * np.dtype(dtype).itemsize, int(masked)
    lanes = target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        x, m0, m1, channels, mean, squares = arguments(p, 6, version)
        w, whole = wide(1, bits, mask), m1 - (m1 - m0) % rows
        mid, total = carray(pointer(mean), (channels,), np.float64), carray(pointer(squares), (channels,), np.float64)
        mid[:] = 0
        total[:] = 0
        for m in range(m0, whole, rows):
            for c in range(0, channels, lanes):
                add_rows(read(zeros(rows, w), x, m * channels + c, channels, channels - c), mean, c, channels - c)
        for m in range(whole, m1):
            for c in range(0, channels, lanes):
                add_rows(read(zeros(1, w), x, m * channels + c, channels, channels - c), mean, c, channels - c)
        for c in range(channels):
            mid[c] /= m1 - m0
        for m in range(m0, whole, rows):
            for c in range(0, channels, lanes):
                t = read(zeros(rows, w), x, m * channels + c, channels, channels - c)
                add_squares(t, mean, squares, c, channels - c)
        for m in range(whole, m1):
            for c in range(0, channels, lanes):
                s = read(zeros(1, w), x, m * channels + c, channels, channels - c)
                add_squares(s, mean, squares, c, channels - c)

    return run


@cache
def sums(dtype: str, masked: bool) -> Kernel:
    """total[c] (float64) = sum of x[m, c] over positions m0..m1, in order."""
    version, rows, bits, mask = sources(), ROWS, 8 * np.dtype(dtype).itemsize, int(masked)
    lanes = target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        x, m0, m1, channels, total = arguments(p, 5, version)
        w, whole = wide(1, bits, mask), m1 - (m1 - m0) % rows
        carray(pointer(total), (channels,), np.float64)[:] = 0
        for m in range(m0, whole, rows):
            for c in range(0, channels, lanes):
                add_rows(read(zeros(rows, w), x, m * channels + c, channels, channels - c), total, c, channels - c)
        for m in range(whole, m1):
            for c in range(0, channels, lanes):
                add_rows(read(zeros(1, w), x, m * channels + c, channels, channels - c), total, c, channels - c)

    return run


@cache
def dots(dtype: str, masked: bool) -> Kernel:
    """total[c] (float64) = sum of x[m, c] z[m, c] over positions m0..m1, in order, the products in float64."""
    version, rows, bits, mask = sources(), ROWS, 8 * np.dtype(dtype).itemsize, int(masked)
    lanes = target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        x, z, m0, m1, channels, total = arguments(p, 6, version)
        w, whole = wide(1, bits, mask), m1 - (m1 - m0) % rows
        carray(pointer(total), (channels,), np.float64)[:] = 0
        for m in range(m0, whole, rows):
            for c in range(0, channels, lanes):
                at, left = m * channels + c, channels - c
                t = read(zeros(rows, w), x, at, channels, left)
                add_dots(t, read(zeros(rows, w), z, at, channels, left), total, c, left)
        for m in range(whole, m1):
            for c in range(0, channels, lanes):
                at, left = m * channels + c, channels - c
                s = read(zeros(1, w), x, at, channels, left)
                add_dots(s, read(zeros(1, w), z, at, channels, left), total, c, left)

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
def factors(dtype: str, eps: float) -> Kernel:
    """scale = gamma / sqrt(var + eps), shift = beta - mean scale per channel, in float64, rounded: a frozen norm's."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(p: int) -> None:
        gamma, beta, mean, var, scale, shift, channels = arguments(p, 7, version)
        by, plus = carray(pointer(gamma), (channels,), kind), carray(pointer(beta), (channels,), kind)
        middle, spread = carray(pointer(mean), (channels,), kind), carray(pointer(var), (channels,), kind)
        scales, shifts = carray(pointer(scale), (channels,), kind), carray(pointer(shift), (channels,), kind)
        for c in range(channels):
            factor = np.float64(by[c]) / np.sqrt(np.float64(spread[c]) + eps)
            scales[c] = factor
            shifts[c] = np.float64(plus[c]) - np.float64(middle[c]) * factor

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
