"""Kernels of a dense k x k convolution (see `kernels.dense`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from minitl.arrays import itemsize
from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, pointer
from minitl.kernels.compiled.stages import ended
from minitl.kernels.compiled.tile import add_outer, add_outer_some, fill, fma, read, store, wide, zeros
from minitl.kernels.rules import digest
from minitl.kernels.target import lanes, target


@cache
def convolve(dtype: str, k: int, s: int, vecs: int, masked: bool, name: str = "") -> Kernel:
    """Output rows r0..r1 and channels j0..j1 of one sample: tiles of neighbouring columns, each with all its taps.

    A chain begins at the bias, or at 0 where that address is. Where an activation is named, a tile goes through a
    frozen norm and that before it is stored.
    """
    version, bits, rows, mask = sources() + digest(name, ""), 8 * itemsize(dtype), target().rows, int(masked)
    width = vecs * lanes(dtype)

    @kernel
    def run(p: int) -> None:
        (
            x, panels, y, inputs, outputs, top, before, height, wide_in, _, wide_out, j0, j1, r0, r1, bias, scale, shift
        ) = arguments(p, 18, version)  # fmt: skip
        w = wide(vecs, bits, mask)
        first = min(wide_out, (before + s - 1) // s)  # columns whose taps all lie on the map
        last = max(first, min(wide_out, (wide_in + before - k) // s + 1))

        def tile(many: int, i: int, j: int, q: int) -> None:
            h, column, left = i * s - top, q * s - before, outputs - j
            t = zeros(many, w)
            if bias:
                t = fill(t, bias, j, left)
            for u in range(max(0, -h), min(k, height - h)):
                at, b = ((h + u) * wide_in + column) * inputs, ((j - j0) * k + u * width) * k * inputs
                for e in range(max(0, -column) * inputs, min(k, wide_in - column) * inputs):
                    t = add_outer(t, x, at + e, s * inputs, panels, b + e * width, left)  # a row's taps and channels
            store(ended(name, t, scale, shift, j, left), y, (i * wide_out + q) * outputs + j, outputs, left)

        for i in range(r0, r1):
            for j in range(j0, j1, width):
                q = 0
                while q < wide_out:
                    if first <= q <= last - rows:
                        tile(rows, i, j, q)
                        q += rows
                    else:
                        tile(1, i, j, q)
                        q += 1

    return run


@cache
def add_up(dtype: str, k: int, s: int, rows: int, vecs: int, masked: bool) -> Kernel:
    """chain (k, k inputs, outputs): its columns j0..j1 go on, or begin, with output rows i0..i1 of a sample.

    Tiles have `rows` of a filter row's taps and their channels, of which that is a divisor, as rows.
    """
    version, bits, mask, across = sources(), 8 * itemsize(dtype), int(masked), vecs * lanes(dtype)

    @kernel
    def run(p: int) -> None:
        (
            x, gy, inputs, outputs, top, before, height, wide_in, _, wide_out, j0, j1, i0, i1, chain, begins
        ) = arguments(p, 16, version)  # fmt: skip
        w = wide(vecs, bits, mask)
        first = min(wide_out, (before + s - 1) // s)  # columns whose taps all lie on the map
        last = max(first, min(wide_out, (wide_in + before - k) // s + 1))
        for u in range(k):
            i_first, i_stop = max(i0, -((u - top) // s)), min(i1, (height - 1 - u + top) // s + 1)
            for j in range(j0, j1, across):
                left = outputs - j
                for e in range(0, k * inputs, rows):
                    here = (u * k * inputs + e) * outputs + j
                    t = zeros(rows, w)
                    if not begins:
                        t = read(t, chain, here, outputs, left)
                    for i in range(i_first, i_stop):
                        row, g = (i * s + u - top) * wide_in * inputs, i * wide_out * outputs + j
                        for q in range(wide_out):
                            at = (q * s - before) * inputs + e
                            if first <= q < last:
                                t = add_outer(t, x, row + at, 1, gy, g + q * outputs, left)
                            else:
                                stop = wide_in * inputs - at
                                t = add_outer_some(t, x, row + at, -at, stop, gy, g + q * outputs, left)
                    store(t, chain, here, outputs, left)

    return run


@cache
def convolve_back(dtype: str, k: int, s: int) -> Kernel:
    """gx of samples n0..n1: output positions ascending, then output channels; taps (k, k, outputs, inputs)."""
    version, kind = sources(), np.dtype(dtype).type

    @kernel
    def run(p: int) -> None:
        (
            gy_at, taps_at, gx_at, samples, inputs, outputs, top, before, height, width, out_height, out_width, n0, n1
        ) = arguments(p, 14, version)  # fmt: skip
        gx = carray(pointer(gx_at), (samples, height, width, inputs), kind)
        gy = carray(pointer(gy_at), (samples, out_height, out_width, outputs), kind)
        taps = carray(pointer(taps_at), (k, k, outputs, inputs), kind)
        gx[n0:n1] = 0
        for n in range(n0, n1):
            for i in range(out_height):
                for j in range(out_width):
                    for u in range(max(0, top - i * s), min(k, height + top - i * s)):
                        for v in range(max(0, before - j * s), min(k, width + before - j * s)):
                            pixel = gx[n, i * s + u - top, j * s + v - before]
                            for o in range(outputs):
                                for c in range(inputs):
                                    pixel[c] = fma(taps[u, v, o, c], gy[n, i, j, o], pixel[c])

    return run
