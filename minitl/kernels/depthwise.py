"""The three products of a depthwise convolution, x (N, H, W, C) and taps (k, k, C):

    y   a chain over (u, v) for each output
    gx  a chain over the output positions (i, j) that a pixel reached, ascending
    gW  a chain over the positions of each group for each tap, groups in float64 (see `groups`)

Taps in the padding contribute nothing. The plain loops below define the products; the kernels
give the same bits, from register tiles of neighbouring columns (y, gx) or of taps (gW).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minitl.arrays import Array, Shape
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, group_size
from minitl.kernels.loops import fma
from minitl.kernels.pointwise import masked, spans
from minitl.kernels.sums import add_groups
from minitl.kernels.target import target
from minitl.kernels.tasks import Place, Recorder, Table, scratch_bytes
from minitl.kernels.window import Window

compiled, pointwise, sums = (Lazily(f"minitl.kernels.compiled.{name}") for name in ("depthwise", "pointwise", "sums"))


def loop_forward(x: Array, taps: Array, at: Window, y: Array) -> None:
    """y = x convolved with taps (k, k, C)."""
    y[:] = 0
    for u in range(at.k):
        for v in range(at.k):
            (i, h), (j, w) = at.rows(u), at.columns(v)
            y[:, i, j] = fma(x[:, h, w], taps[u, v], y[:, i, j])


def loop_grad_input(gy: Array, taps: Array, at: Window, gx: Array) -> None:
    """gx: what each pixel gave, times its slope; later taps reach a pixel from earlier outputs."""
    gx[:] = 0
    for u in reversed(range(at.k)):
        for v in reversed(range(at.k)):
            (i, h), (j, w) = at.rows(u), at.columns(v)
            gx[:, h, w] = fma(gy[:, i, j], taps[u, v], gx[:, h, w])


def loop_grad_weight(x: Array, gy: Array, at: Window, gtaps: Array) -> None:
    """gtaps (k, k, C): a chain for each group of samples."""
    size = group_size(gy.shape)
    gtaps[:] = add_groups([_chain(x[n : n + size], gy[n : n + size], at) for n in range(0, len(gy), size)])


def _chain(x: Array, gy: Array, at: Window) -> Array:
    chain = np.zeros((at.k, at.k, x.shape[3]), x.dtype)
    for n, i, j in np.ndindex(gy.shape[:3]):
        top, left = i * at.s - at.top, j * at.s - at.before
        u, v = slice(max(0, -top), at.height - top), slice(max(0, -left), at.width - left)
        here = chain[u, v]
        pixels = x[n, max(0, top) : top + at.k, max(0, left) : left + at.k]
        here[:] = fma(pixels[: len(here), : here.shape[1]], gy[n, i, j], here)
    return chain


def forward(x: Array, taps: Array, at: Window, y: Array) -> None:
    """y = x convolved with taps (k, k, C)."""
    if interpreted():
        loop_forward(x, taps, at, y)
    else:
        forward_table(x.shape, at, x.dtype.name).run(x, taps, y)


def grad_input(gy: Array, taps: Array, at: Window, gx: Array) -> None:
    """gx of that convolution."""
    if interpreted():
        loop_grad_input(gy, taps, at, gx)
    else:
        grad_input_table(gx.shape, at, gy.dtype.name).run(gy, taps, gx)


def grad_weight(x: Array, gy: Array, at: Window, gw: Array) -> None:
    """gw (C, 1, k, k) of that convolution."""
    if interpreted():
        gtaps = np.empty((at.k, at.k, x.shape[3]), x.dtype)
        loop_grad_weight(x, gy, at, gtaps)
        gw[:, 0] = gtaps.transpose(2, 0, 1)
    else:
        grad_weight_table(x.shape, at, gy.dtype.name).run(x, gy, gw)


def forward_call(
    record: Recorder, at: Window, channels: int, dtype: str, rows: tuple[int, int], places: tuple[Place, Place, Place]
) -> None:
    """Record output rows `rows` of one sample; places are of the sample's first row, the taps and its output."""
    x, taps, y = places
    rule = compiled.convolve(dtype, at.k, at.s, masked(channels, dtype))
    record.call(rule, x, taps, y, at.height, at.width, at.out_width, channels, at.top, at.before, *rows)


def grad_input_call(
    record: Recorder, at: Window, channels: int, dtype: str, rows: tuple[int, int], places: tuple[Place, Place, Place]
) -> None:
    """Record input rows `rows` of one sample's gx; places are of gy, the taps and gx, each sample's first row."""
    gy, taps, gx = places
    rule = compiled.convolve_back(dtype, at.k, at.s, at.before, masked(channels, dtype))
    record.call(rule, gy, taps, gx, at.width, at.out_height, at.out_width, channels, at.top, *rows)


@lru_cache(maxsize=1024)
def forward_table(x: Shape, at: Window, dtype: str) -> Table:
    """x, taps, y."""
    record, itemsize = Recorder(), np.dtype(dtype).itemsize
    per_x, per_y = (h * w * x[3] * itemsize for h, w in ((at.height, at.width), (at.out_height, at.out_width)))
    for n, rows in _bands(x[0], at.out_height):
        record.task()
        forward_call(record, at, x[3], dtype, rows, (Place(2, n * per_x), Place(3), Place(4, n * per_y)))
    return record.table()


@lru_cache(maxsize=1024)
def grad_input_table(x: Shape, at: Window, dtype: str) -> Table:
    """gy, taps, gx."""
    record, itemsize = Recorder(), np.dtype(dtype).itemsize
    per_x, per_y = (h * w * x[3] * itemsize for h, w in ((at.height, at.width), (at.out_height, at.out_width)))
    for n, rows in _bands(x[0], at.height):
        record.task()
        grad_input_call(record, at, x[3], dtype, rows, (Place(2, n * per_y), Place(3), Place(4, n * per_x)))
    return record.table()


def _bands(samples: int, height: int) -> list[tuple[int, tuple[int, int]]]:
    """A sample and some of its rows for each task."""
    return [(n, rows) for n in range(samples) for rows in spans(height, 4)]


def grad_weight_calls(record: Recorder, x: Shape, at: Window, dtype: str, places: tuple[Place, Place, Place]) -> None:
    """Record gw (C, 1, k, k), a task for some channels; places are of x, gy and gw."""
    itemsize, lanes, (source, gy, gw) = np.dtype(dtype).itemsize, target().lanes(np.dtype(dtype).itemsize), places
    channels, area = x[3], at.out_height * at.out_width
    for c0, c1 in spans(channels, lanes):
        count = at.k * at.k * (c1 - c0)
        chain = record.scratch(count * itemsize)
        total = record.scratch(count * 8, offset=-(-count * itemsize // 64) * 64)
        record.task()
        for number, (first, last) in enumerate(Groups((x[0], at.out_height, at.out_width, channels))):
            for u0, u1 in _tap_rows(at.k):
                record.call(
                    compiled.add_up(dtype, at.k, at.s, u0, u1, masked(channels, dtype)), source, gy,
                    at.height, at.width, at.out_height, at.out_width, channels, at.top, at.before,
                    first // area, last // area, c0, c1,
                    chain + u0 * at.k * (c1 - c0) * itemsize,
                )  # fmt: skip
            record.call(sums.join_groups(dtype), chain, total, count, number == 0)
        record.call(
            pointwise.round_piece(dtype), total, at.k * at.k, c1 - c0, gw + c0 * at.k * at.k * itemsize, 1, at.k * at.k
        )


def _tap_rows(k: int) -> list[tuple[int, int]]:
    """Rows of taps whose sums fit the registers together."""
    most = max(1, (25 if target().vector_bytes == 64 else 12) // k)
    return [(u, min(u + most, k)) for u in range(0, k, most)]


@lru_cache(maxsize=1024)
def grad_weight_table(x: Shape, at: Window, dtype: str) -> Table:
    """x, gy, gw."""
    record = Recorder()
    grad_weight_calls(record, x, at, dtype, (Place(2), Place(3), Place(4)))
    return record.table()


def grad_weight_scratch(channels: int, k: int, dtype: str) -> int:
    """Bytes of scratch memory that the weight's gradient takes, on the threads in force."""
    pieces = list(spans(channels, target().lanes(np.dtype(dtype).itemsize)))
    count = k * k * (pieces[0][1] - pieces[0][0])
    return scratch_bytes(-(-count * np.dtype(dtype).itemsize // 64) * 64 + count * 8, len(pieces))
