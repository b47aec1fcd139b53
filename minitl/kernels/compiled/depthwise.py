"""Kernels of depthwise convolutions (see `kernels.depthwise`); `top` is the padding above the map."""

from __future__ import annotations

from functools import cache
from typing import Any

from minitl.arrays import itemsize
from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments
from minitl.kernels.compiled.stages import ended
from minitl.kernels.compiled.taps import add_products, add_taps, add_taps_back
from minitl.kernels.compiled.tile import read, store, wide, zeros
from minitl.kernels.rules import digest
from minitl.kernels.target import lanes, target

NEAR = 96  # channels whose neighbouring rows stay in the cache
COLUMNS = 7  # of a tile: the usual maps are multiples of it wide


@cache
def convolve(dtype: str, k: int, s: int, masked: bool, name: str = "") -> Kernel:
    """Output rows r0..r1: tiles of neighbouring columns of one vector of channels.

    Where an activation is named, a tile goes through a frozen norm and that before it is stored.
    """
    version, bits, mask, step = sources() + digest(name, ""), 8 * itemsize(dtype), int(masked), lanes(dtype)

    @kernel
    def run(p: int) -> None:
        (
            x, taps, y, channels, top, before, height, width, _, out_width, r0, r1, scale, shift
        ) = arguments(p, 14, version)  # fmt: skip
        w, whole = wide(1, bits, mask), out_width - out_width % COLUMNS

        def tiles(some: int, i: int, j: int, near: int) -> None:
            h, column = i * s - top, j * s - before
            for c in range(near, min(near + NEAR, channels), step):
                t, left = zeros(some, w), channels - c
                for u in range(max(0, -h), min(k, height - h)):
                    t = add_taps(
                        k, s, t, x, ((h + u) * width + column) * channels + c, channels,
                        taps, u * k * channels + c, -column, width - column, left,
                    )  # fmt: skip
                store(ended(name, t, scale, shift, c, left), y, (i * out_width + j) * channels + c, channels, left)

        for near in range(0, channels, NEAR):
            for i in range(r0, r1):
                for j in range(0, whole, COLUMNS):
                    tiles(COLUMNS, i, j, near)
                for j in range(whole, out_width):
                    tiles(1, i, j, near)

    return run


@cache
def convolve_back(dtype: str, k: int, s: int, before: int, masked: bool) -> Kernel:
    """Input rows r0..r1 of gx: tiles of neighbouring columns that begin at a multiple of the stride."""
    version, bits, mask, step = sources(), 8 * itemsize(dtype), int(masked), lanes(dtype)
    many = COLUMNS if s == 1 else 14 if target().vector_bytes == 64 else 8

    @kernel
    def run(p: int) -> None:
        gy, taps, gx, channels, top, _, _, width, out_height, out_width, r0, r1 = arguments(p, 12, version)
        w, whole = wide(1, bits, mask), width - width % many
        pairs = width - (width - whole) % s

        def tiles(some: int, h: int, q: int, near: int) -> None:
            j = q // s
            for c in range(near, min(near + NEAR, channels), step):
                t, left = zeros(some, w), channels - c
                for i in range(max(0, (h + top - k + s) // s), min(out_height, (h + top) // s + 1)):
                    t = add_taps_back(
                        k, s, before, t, gy, (i * out_width + j) * channels + c, channels,
                        taps, (h + top - i * s) * k * channels + c, -j, out_width - j, left,
                    )  # fmt: skip
                store(t, gx, (h * width + q) * channels + c, channels, left)

        for near in range(0, channels, NEAR):
            for h in range(r0, r1):
                for q in range(0, whole, many):
                    tiles(many, h, q, near)
                for q in range(whole, pairs, s):
                    tiles(s, h, q, near)
                for q in range(pairs, width):
                    tiles(1, h, q, near)

    return run


@cache
def add_up(dtype: str, k: int, s: int, u0: int, u1: int, masked: bool) -> Kernel:
    """chain (k, k, channels): its tap rows u0..u1 go on, or begin, with output rows i0..i1 of a sample."""
    version, bits, mask, step, rows = sources(), 8 * itemsize(dtype), int(masked), lanes(dtype), (u1 - u0) * k

    @kernel
    def run(p: int) -> None:
        (
            x, gy, channels, top, before, height, width, _, out_width, i0, i1, c0, c1, chain, begins
        ) = arguments(p, 15, version)  # fmt: skip
        w, whole = wide(1, bits, mask), out_width - out_width % COLUMNS

        def add(t: Any, many: int, i: int, j: int, c: int) -> Any:
            h, column = i * s - top, j * s - before
            return add_products(
                k, s, many, u0, t,
                x, (h * width + column) * channels + c, width * channels, channels,
                gy, (i * out_width + j) * channels + c, -column, width - column, -h, height - h, channels - c,
            )  # fmt: skip

        for c in range(c0, c1, step):
            t, at = zeros(rows, w), u0 * k * channels + c
            if not begins:
                t = read(t, chain, at, channels, channels - c)
            for i in range(i0, i1):
                for j in range(0, whole, COLUMNS):
                    t = add(t, COLUMNS, i, j, c)
                for j in range(whole, out_width):
                    t = add(t, 1, i, j, c)
            store(t, chain, at, channels, channels - c)

    return run
