"""Kernels of pointwise convolutions: packing, the product, the weight's gradient (see `kernels.pointwise`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.arrays import itemsize
from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer
from minitl.kernels.compiled.stages import ended, times
from minitl.kernels.compiled.tile import add_outer, fill, read, store, turned, wide, zeros
from minitl.kernels.rules import digest
from minitl.kernels.target import lanes, target

BLOCK = 192  # positions whose inputs stay in the cache while all panels of the weight go by
NEAR = 96  # positions of both maps that stay in the first cache while a weight's gradient takes them in


@cache
def pack_panel(dtype: str, gated: bool, transposed: bool) -> Kernel:
    """panel (K, width) = W[j0:, :] transposed or W[:, j0:], perhaps times a gate per input; 0 beyond the columns.

    `source` is where the panel's part of the weight begins, `step` from one row of the weight to the next.
    """
    version, kind, size, count = sources(), np.dtype(dtype).type, itemsize(dtype), 7 if gated else 6
    bits, side = 8 * size, lanes(dtype)  # of a square tile

    @kernel
    def pack(p: int) -> None:
        given = arguments(p, count, version)
        source, step, inner, columns, width, panel = given[:6]
        out = carray(pointer(panel), (inner, width), kind)
        gate = carray(pointer(given[count - 1]), (inner if transposed else columns,), kind)
        if transposed:
            whole, w = columns - columns % side, wide(1, bits, 0)
            for n in range(0, whole, side):
                for k in range(0, inner - side + 1, side):
                    t = read(zeros(side, w), source, n * step + k, step, side)
                    if gated:
                        t = times(t, given[count - 1], k, side)
                    store(turned(t), panel, k * width + n, width, side)
            for n in range(columns):
                row = carray(pointer(source + n * step * size), (inner,), kind)
                for k in range(inner - inner % side if n < whole else 0, inner):
                    out[k, n] = row[k] * gate[k] if gated else row[k]
        else:
            for k in range(inner):
                row = carray(pointer(source + k * step * size), (columns,), kind)
                for n in range(columns):
                    out[k, n] = row[n] * gate[n] if gated else row[n]
        if columns < width:
            out[:, columns:] = 0

    return pack


@cache
def product(dtype: str, vecs: int, how: int, name: str = "") -> Kernel:
    """y = x B (+ b) for positions m0..m1 and columns j0..j1, in tiles of `vecs` vectors (and `how`: see `tile.wide`).

    B lies in panels of that width: steps between its rows and between panels are given, so it may be a plain matrix.
    A chain begins at b, or at 0 where that address is. Where an activation is named, a tile goes through a frozen
    norm and that before it is stored.
    """
    version, bits, rows = sources() + digest(name, ""), 8 * itemsize(dtype), target().rows
    width, block = vecs * (lanes(dtype) >> how // 2), BLOCK // rows * rows

    @kernel
    def multiply(p: int) -> None:
        x, inner, panels, row, panel, y, columns, j0, j1, m0, m1, bias, scale, shift = arguments(p, 14, version)
        w = wide(vecs, bits, how)

        def tile(many: int, m: int, j: int) -> None:
            left, b = columns - j, (j - j0) // width * panel
            t = zeros(many, w)
            if bias:
                t = fill(t, bias, j, left)
            for k in range(inner):
                t = add_outer(t, x, m * inner + k, inner, panels, b + k * row, left)
            store(ended(name, t, scale, shift, j, left), y, m * columns + j, columns, left)

        for start in range(m0, m1, block):
            stop = min(start + block, m1)
            for j in range(j0, j1, width):
                for m in range(start, stop - rows + 1, rows):
                    tile(rows, m, j)
                for m in range(stop - (stop - start) % rows, stop):
                    tile(1, m, j)

    return multiply


@cache
def outer(dtype: str, vecs: int, how: int) -> Kernel:
    """chain[o - o0, j - j0] goes on, or begins, with a[m a_step + o a_row] b[m, j] over positions m0..m1.

    Tiles have `vecs` vectors of columns j0..j1 (and `how`: see `tile.wide`); a row of the chain is `width` long.
    """
    version, bits, rows = sources(), 8 * itemsize(dtype), target().outer_rows
    across = vecs * (lanes(dtype) >> how // 2)

    @kernel
    def multiply(p: int) -> None:
        a, a_step, a_row, o0, o1, b, b_step, j0, j1, m0, m1, chain, width, begins = arguments(p, 14, version)
        w = wide(vecs, bits, how)

        def tile(many: int, o: int, j: int, start: int) -> None:
            at, left = (o - o0) * width + j - j0, j1 - j
            t = zeros(many, w)
            if not begins or start > m0:
                t = read(t, chain, at, width, left)
            for m in range(start, min(start + NEAR, m1)):
                t = add_outer(t, a, m * a_step + o * a_row, a_row, b, m * b_step + j, left)
            store(t, chain, at, width, left)

        for start in range(m0, m1, NEAR):
            for j in range(j0, j1, across):
                for o in range(o0, o1 - rows + 1, rows):
                    tile(rows, o, j, start)
                for o in range(o1 - (o1 - o0) % rows, o1):
                    tile(1, o, j, start)

    return multiply
