"""Kernels of pointwise convolutions: packing, the product, the weight's gradient (see `kernels.pointwise`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer
from minitl.kernels.compiled.tile import add_outer, fill, read, store, wide, zeros
from minitl.kernels.target import target

BLOCK = 192  # positions whose inputs stay in the cache while all panels of the weight go by


@cache
def pack_panel(dtype: str, gated: bool, by_row: bool) -> Kernel:
    """panel (K, width) = source[k k_step + n n_step], times gate[k] or gate[n]; 0 beyond the columns there are."""
    version, kind, itemsize = sources(), np.dtype(dtype).type, np.dtype(dtype).itemsize
    count = 8 if gated else 7

    @kernel
    def pack(p: int) -> None:
        given = arguments(p, count, version)
        source, k_step, n_step, inner, columns, width, panel = given[:7]
        out = carray(pointer(panel), (inner, width), kind)
        factors = carray(pointer(given[count - 1]), (max(inner, columns),), kind)
        for k in range(inner):
            row = carray(pointer(source + k * k_step * itemsize), (columns * n_step,), kind)
            for n in range(columns):
                if gated:
                    out[k, n] = row[n * n_step] * factors[k if by_row else n]
                else:
                    out[k, n] = row[n * n_step]
            for n in range(columns, width):
                out[k, n] = 0

    return pack


@cache
def product(dtype: str, vecs: int, masked: bool, biased: bool) -> Kernel:
    """y = x B (+ b) for positions m0..m1 and columns j0..j1, in tiles of `vecs` vectors; B in panels of that width."""
    version, bits, rows = sources(), 8 * np.dtype(dtype).itemsize, target().rows
    width, count, mask = vecs * target().lanes(bits // 8), 10 if biased else 9, int(masked)

    @kernel
    def multiply(p: int) -> None:
        given = arguments(p, count, version)
        x, inner, panels, y, columns, j0, j1, m0, m1 = given[:9]
        w = wide(vecs, bits, mask)
        for start in range(m0, m1, BLOCK):
            stop = min(start + BLOCK, m1)
            for j in range(j0, j1, width):
                b = (j - j0) * inner
                for m in range(start, stop - rows + 1, rows):
                    t = zeros(rows, w)
                    if biased:
                        t = fill(t, given[9], j, columns - j)
                    for k in range(inner):
                        t = add_outer(t, x, m * inner + k, inner, panels, b + k * width, width)
                    store(t, y, m * columns + j, columns, columns - j)
                for m in range(stop - (stop - start) % rows, stop):
                    s = zeros(1, w)
                    if biased:
                        s = fill(s, given[9], j, columns - j)
                    for k in range(inner):
                        s = add_outer(s, x, m * inner + k, inner, panels, b + k * width, width)
                    store(s, y, m * columns + j, columns, columns - j)

    return multiply


@cache
def outer(dtype: str, vecs: int, masked: bool) -> Kernel:
    """total (o1 - o0, width) goes on as the chain of a[m, o] b[m, j] over positions m0..m1; j0..j1 is one panel."""
    version, bits, rows, mask = sources(), 8 * np.dtype(dtype).itemsize, target().rows, int(masked)

    @kernel
    def multiply(p: int) -> None:
        a, a_step, o0, o1, b, b_step, j0, j1, m0, m1, total, width = arguments(p, 12, version)
        w = wide(vecs, bits, mask)
        left = j1 - j0
        for o in range(o0, o1 - rows + 1, rows):
            t = read(zeros(rows, w), total, (o - o0) * width, width, left)
            for m in range(m0, m1):
                t = add_outer(t, a, m * a_step + o, 1, b, m * b_step + j0, left)
            store(t, total, (o - o0) * width, width, left)
        for o in range(o1 - (o1 - o0) % rows, o1):
            s = read(zeros(1, w), total, (o - o0) * width, width, left)
            for m in range(m0, m1):
                s = add_outer(s, a, m * a_step + o, 1, b, m * b_step + j0, left)
            store(s, total, (o - o0) * width, width, left)

    return multiply


@cache
def round_piece(dtype: str) -> Kernel:
    """out[o row_step + j column_step] = total (rows, columns), rounded from float64."""
    version, kind, itemsize = sources(), np.dtype(dtype).type, np.dtype(dtype).itemsize

    @kernel
    def finish(p: int) -> None:
        total, rows, columns, out, row_step, column_step = arguments(p, 6, version)
        sums = carray(pointer(total), (rows, columns), np.float64)
        for o in range(rows):
            target_row = carray(pointer(out + o * row_step * itemsize), (columns * column_step,), kind)
            for j in range(columns):
                target_row[j * column_step] = sums[o, j]

    return finish
