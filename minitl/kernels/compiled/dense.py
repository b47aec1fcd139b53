"""Kernels of a dense k x k convolution (see `kernels.dense`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer
from minitl.kernels.compiled.stages import ended
from minitl.kernels.compiled.tile import add_outer, add_outer_some, fill, fma, read, store, wide, zeros
from minitl.kernels.rules import ending
from minitl.kernels.target import target


@cache
def convolve(dtype: str, k: int, s: int, vecs: int, masked: bool, biased: bool, name: str = "") -> Kernel:
    """Output rows r0..r1 and channels j0..j1 of one sample: tiles of neighbouring columns, each with all its taps.

    Where an activation is named, a tile goes through a frozen norm and that before it is stored.
    """
    version, bits, rows, mask = sources() + ending(name), 8 * np.dtype(dtype).itemsize, target().rows, int(masked)
    width = vecs * target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        given = arguments(p, 17, version)
        x, panels, y, inputs, outputs, height, wide_in, wide_out, top, before = given[:10]
        j0, j1, r0, r1, bias, scale, shift = given[10:]
        w = wide(vecs, bits, mask)
        first = min(wide_out, (before + s - 1) // s)  # columns whose taps all lie on the map
        last = max(first, min(wide_out, (wide_in + before - k) // s + 1))
        for i in range(r0, r1):
            h = i * s - top
            u0, u1 = max(0, -h), min(k, height - h)
            for j in range(j0, j1, width):
                b = (j - j0) * k * k * inputs
                for q in range(first, last - rows + 1, rows):
                    t = zeros(rows, w)
                    if biased:
                        t = fill(t, bias, j, outputs - j)
                    for u in range(u0, u1):
                        at = ((h + u) * wide_in + q * s - before) * inputs
                        for e in range(k * inputs):  # taps of a row and their channels lie side by side
                            t = add_outer(
                                t, x, at + e, s * inputs, panels, b + (u * k * inputs + e) * width, outputs - j
                            )
                    t = ended(name, t, scale, shift, j, outputs - j)
                    store(t, y, (i * wide_out + q) * outputs + j, outputs, outputs - j)
                rest = last - (last - first) % rows
                for part in range(2):
                    for q in range(0 if part == 0 else rest, first if part == 0 else wide_out):
                        one = zeros(1, w)
                        if biased:
                            one = fill(one, bias, j, outputs - j)
                        column = q * s - before
                        e0, e1 = max(0, -column) * inputs, min(k, wide_in - column) * inputs
                        for u in range(u0, u1):
                            at = ((h + u) * wide_in + column) * inputs
                            for e in range(e0, e1):
                                one = add_outer(
                                    one, x, at + e, s * inputs, panels, b + (u * k * inputs + e) * width, outputs - j
                                )
                        one = ended(name, one, scale, shift, j, outputs - j)
                        store(one, y, (i * wide_out + q) * outputs + j, outputs, outputs - j)

    return run


@cache
def add_up(dtype: str, k: int, s: int, rows: int, vecs: int, masked: bool) -> Kernel:
    """chain (k, k inputs, outputs): its columns j0..j1 go on, or begin, with output rows i0..i1 of a sample.

    Tiles have `rows` of a filter row's taps and their channels, of which that is a divisor, as rows.
    """
    version, bits, mask = sources(), 8 * np.dtype(dtype).itemsize, int(masked)
    across = vecs * target().lanes(bits // 8)

    @kernel
    def run(p: int) -> None:
        x, gy, inputs, outputs, height, wide_in, wide_out, top, before, j0, j1, i0, i1, chain, begins = arguments(
            p, 15, version
        )
        w = wide(vecs, bits, mask)
        first = min(wide_out, (before + s - 1) // s)  # columns whose taps all lie on the map
        last = max(first, min(wide_out, (wide_in + before - k) // s + 1))
        for u in range(k):
            for j in range(j0, j1, across):
                left = outputs - j
                for e in range(0, k * inputs, rows):
                    t = zeros(rows, w)
                    if not begins:
                        t = read(t, chain, (u * k * inputs + e) * outputs + j, outputs, left)
                    for i in range(max(i0, -((u - top) // s)), min(i1, (height - 1 - u + top) // s + 1)):
                        at, g = ((i * s + u - top) * wide_in - before) * inputs + e, i * wide_out * outputs + j
                        for q in range(first):
                            t = add_outer_some(
                                t, x, at + q * s * inputs, (before - q * s) * inputs - e,
                                (wide_in + before - q * s) * inputs - e, gy, g + q * outputs, left,
                            )  # fmt: skip
                        for q in range(first, last):
                            t = add_outer(t, x, at + q * s * inputs, 1, gy, g + q * outputs, left)
                        for q in range(last, wide_out):
                            t = add_outer_some(
                                t, x, at + q * s * inputs, (before - q * s) * inputs - e,
                                (wide_in + before - q * s) * inputs - e, gy, g + q * outputs, left,
                            )  # fmt: skip
                    store(t, chain, (u * k * inputs + e) * outputs + j, outputs, left)

    return run


@cache
def convolve_back(dtype: str, k: int, s: int) -> Kernel:
    """gx of samples n0..n1: output positions ascending, then output channels; taps (k, k, outputs, inputs)."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(p: int) -> None:
        (
            gy_at, taps_at, gx_at, samples, inputs, outputs, height, width, out_height, out_width, top, before, n0, n1
        ) = arguments(p, 14, version)  # fmt: skip
        gx = carray(pointer(gx_at), (samples, height, width, inputs), kind)
        gy = carray(pointer(gy_at), (samples, out_height, out_width, outputs), kind)
        taps = carray(pointer(taps_at), (k, k, outputs, inputs), kind)
        gx[n0:n1] = 0
        for n in range(n0, n1):
            for i in range(out_height):
                for j in range(out_width):
                    for u in range(k):
                        h = i * s + u - top
                        if 0 <= h < height:
                            for v in range(k):
                                q = j * s + v - before
                                if 0 <= q < width:
                                    for o in range(outputs):
                                        slope = gy[n, i, j, o]
                                        for c in range(inputs):
                                            gx[n, h, q, c] = fma(taps[u, v, o, c], slope, gx[n, h, q, c])

    return run
