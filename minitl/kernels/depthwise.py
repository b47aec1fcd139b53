"""Depthwise convolution: every channel with a k x k filter of its own.

    y[n, i, j, c] = sum over (u, v) of w[u, v, c] x[n, s i + u - p, s j + v - p, c],  p = (k - 1) / 2,

where x is zero outside. This is the fast form, for stride 1; where there is a stride, and on maps
of three rows or fewer, the plain loops of `depthwise_ordered` do the work.

Channels are last and filters (k, k, C), so a tap acts on a stretch of a row, channels and columns
alike: against the filter repeated for as many columns, it is one loop over a few hundred numbers
that lie side by side. Such a loop is short of loads, not of arithmetic. So one pass takes three
or five taps, one below the other, to four rows of the output, which share rows of x:

    d_b += sum over t of w_t x_(b + t),   b = 0..3.

Indices are of unsigned type: with signed ones Numba asks of each whether it counts from the end,
and the loop is not vectorised. A product and a sum may be rounded as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, Shape
from minitl.kernels import depthwise_ordered, threads
from minitl.kernels.jit import jit_contract

ROWS = 4  # of the output, in a pass
PASS = 512  # numbers of a row in a pass, about: whole columns, at least one
SURPLUS = 2  # taps by which the last three or five may be beyond the filter
FEW = 128  # positions: as many, and the rest of their rows, are summed in the arrays' dtype

MakeArray = Callable[[Shape, Callable[[], Array]], Array]


def make_array(shape: Shape, make: Callable[[], Array]) -> Array:
    """What `make` gives."""
    return make()


class Filter(NamedTuple):
    """A filter made ready for maps of one shape: repeated for some columns; and a row of the zeros outside a map.

    Where the plain loops do the work there is only the filter itself.
    """

    w: Array
    repeated: Array | None = None
    outside: Array | None = None


def prepare(w: Array, y: Shape, stride: int, array: MakeArray = make_array, *, back: bool = False) -> Filter:
    """The filter (k, k, C) for outputs of shape y; `array(shape, make)` calls `make` for an array of that shape.

    On the way `back` at stride 1 gx is gy convolved with the filter turned by half.
    """
    if _plain(y, stride):
        return Filter(w)
    kernel, channels = w.shape[1:]
    columns = _columns(y)

    def repeat() -> Array:
        taps = np.zeros((kernel + SURPLUS, kernel, columns, channels), w.dtype)
        taps[:kernel] = (w[::-1, ::-1] if back else w)[:, :, None]
        return taps.reshape(kernel + SURPLUS, kernel, -1)

    repeated = array((kernel + SURPLUS, kernel, columns * channels), repeat)
    return Filter(w, repeated, _zeros((y[2] * channels,), w, array))


def forward(x: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, Ho, Wo, C) = x (N, H, W, C) convolved with w (k, k, C)."""
    prepared = prepare(w, out.shape, stride)
    threads.run(lambda a, b: correlate(x[a:b], prepared, stride, out[a:b]), _spans(w.shape[0], out.shape))


def grad_input(gy: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, H, W, C): gx[n, s i + u - p, s j + v - p, c] = sum of w[u, v, c] gy[n, i, j, c]."""
    prepared = prepare(w, gy.shape, stride, back=True)
    threads.run(lambda a, b: correlate_back(gy[a:b], prepared, stride, out[a:b]), _spans(w.shape[0], gy.shape))


def grad_weight(x: Array, gy: Array, stride: int, out: Array) -> None:
    """out (k, k, C): gw[u, v, c] = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] gy[n, i, j, c].

    Summed blockwise: over some rows in the arrays' dtype, then over the rows of a sample and over
    samples in float64, chunk by chunk of samples, and the chunks in their order.
    """
    kernel = out.shape[0]
    spans = _spans(kernel, gy.shape)
    rooms, step = summing_rooms(x, gy.shape, kernel, stride, len(spans)), spans[0][1]
    total = np.zeros((len(spans), *out.shape))
    threads.run(lambda a, b: add_products(x[a:b], gy[a:b], stride, rooms, a // step, total[a // step]), spans)
    for partial in total[1:]:
        total[0] += partial
    out[:] = total[0]


# The same on one thread, with all memory handed in


def correlate(x: Array, prepared: Filter, stride: int, out: Array) -> None:
    """`forward` of some samples."""
    if prepared.repeated is None:
        depthwise_ordered.correlate(x, prepared.w, stride, out)
    else:
        _correlate(_flat(x), prepared.repeated, out.shape[3], prepared.outside, _flat(out))


def correlate_back(gy: Array, prepared: Filter, stride: int, out: Array) -> None:
    """`grad_input` of some samples, with a filter prepared for the way back."""
    if prepared.repeated is None:
        depthwise_ordered.correlate_back(gy, prepared.w, stride, out)
    else:
        correlate(gy, prepared, stride, out)


class Rooms(NamedTuple):
    """Where `add_products` sums a few rows, a place for each that does so at a time; and the zeros outside a map."""

    sums: Array
    outside: Array


def summing_rooms(x: Array, y: Shape, kernel: int, stride: int, places: int, array: MakeArray = make_array) -> Rooms:
    """Rooms for maps like x and outputs of shape y."""
    few: Shape = (y[3],) if _plain(y, stride) else (kernel + SURPLUS, kernel, _columns(y) * y[3])
    outside = (0,) if _plain(y, stride) else (x.shape[2] * y[3],)
    return Rooms(_zeros((places, *few), x, array), _zeros(outside, x, array))


def add_products(x: Array, gy: Array, stride: int, rooms: Rooms, place: int, total: Array) -> None:
    """total (k, k, C) += the weight gradient of some samples."""
    if _plain(gy.shape, stride):
        depthwise_ordered.add_products(x, gy, stride, rooms.sums[place], total)
    else:
        _grad_weight(_flat(x), _flat(gy), rooms.outside, rooms.sums[place], total)


def workspace(y: Shape, kernel: int, stride: int, itemsize: int) -> int:
    """Bytes that `forward` and `grad_input` allocate besides `out`, for y of that shape."""
    return 0 if _plain(y, stride) else ((kernel + SURPLUS) * kernel * _columns(y) + y[2]) * y[3] * itemsize


def grad_weight_workspace(y: Shape, kernel: int, stride: int, itemsize: int) -> int:
    """Bytes that `grad_weight` allocates besides `out`, for y of that shape."""
    places = len(_spans(kernel, y))
    total = places * kernel * kernel * y[3] * 8
    if _plain(y, stride):
        return total + places * y[3] * itemsize
    return total + (places * (kernel + SURPLUS) * kernel * _columns(y) + y[2]) * y[3] * itemsize


def _zeros(shape: Shape, like: Array, array: MakeArray) -> Array:
    return array(shape, lambda: np.zeros(shape, like.dtype))


def _plain(y: Shape, stride: int) -> bool:
    return stride > 1 or y[1] < ROWS


def _columns(y: Shape) -> int:
    """Of a pass."""
    return max(1, min(y[2], PASS // y[3]))


def _spans(kernel: int, y: Shape) -> list[tuple[int, int]]:
    return threads.chunks(y[0], math.prod(y) * kernel * kernel)


def _flat(x: Array) -> Array:
    return x.reshape(*x.shape[:2], -1)


@jit_contract
def _correlate(x: Array, w: Array, channels: int, zero: Array, out: Array) -> None:
    """out (N, H, W C) = x (N, H, W C) convolved with w, which has SURPLUS rows of zeros below."""
    samples, height, width, kernel = x.shape[0], x.shape[1], x.shape[2] // channels, w.shape[1]
    pad, columns = (kernel - 1) // 2, w.shape[2] // channels
    for n in range(samples):
        for block in range(0, height, ROWS):
            i = min(block, height - ROWS)  # the last block does rows of the one before again
            d0, d1, d2, d3 = out[n, i], out[n, i + 1], out[n, i + 2], out[n, i + 3]
            for j in range(0, width, columns):
                begin, end = j * channels, min(j + columns, width) * channels
                d0[begin:end] = 0.0
                d1[begin:end] = 0.0
                d2[begin:end] = 0.0
                d3[begin:end] = 0.0
                for v in range(kernel):
                    first, last = max(j, pad - v), min(j + columns, width, width + pad - v)
                    if first >= last:
                        continue
                    size = np.uint64((last - first) * channels)
                    b, s = np.uint64(first * channels), np.uint64((first + v - pad) * channels)
                    u = 0
                    while u < kernel:
                        h = i + u - pad
                        w0, w1, w2 = w[u, v], w[u + 1, v], w[u + 2, v]
                        x0 = x[n, h] if 0 <= h < height else zero
                        x1 = x[n, h + 1] if 0 <= h + 1 < height else zero
                        x2 = x[n, h + 2] if 0 <= h + 2 < height else zero
                        x3 = x[n, h + 3] if 0 <= h + 3 < height else zero
                        x4 = x[n, h + 4] if 0 <= h + 4 < height else zero
                        x5 = x[n, h + 5] if 0 <= h + 5 < height else zero
                        if u + 3 >= kernel:
                            for f in range(size):
                                p0, p1, p2 = w0[f], w1[f], w2[f]
                                q0, q1, q2 = x0[s + f], x1[s + f], x2[s + f]
                                q3, q4, q5 = x3[s + f], x4[s + f], x5[s + f]
                                y0 = d0[b + f] + p0 * q0 + p1 * q1 + p2 * q2
                                y1 = d1[b + f] + p0 * q1 + p1 * q2 + p2 * q3
                                y2 = d2[b + f] + p0 * q2 + p1 * q3 + p2 * q4
                                y3 = d3[b + f] + p0 * q3 + p1 * q4 + p2 * q5
                                d0[b + f], d1[b + f], d2[b + f], d3[b + f] = y0, y1, y2, y3
                            u += 3
                        else:
                            w3, w4 = w[u + 3, v], w[u + 4, v]
                            x6 = x[n, h + 6] if 0 <= h + 6 < height else zero
                            x7 = x[n, h + 7] if 0 <= h + 7 < height else zero
                            for f in range(size):
                                p0, p1, p2, p3, p4 = w0[f], w1[f], w2[f], w3[f], w4[f]
                                q0, q1, q2, q3 = x0[s + f], x1[s + f], x2[s + f], x3[s + f]
                                q4, q5, q6, q7 = x4[s + f], x5[s + f], x6[s + f], x7[s + f]
                                y0 = d0[b + f] + p0 * q0 + p1 * q1 + p2 * q2 + p3 * q3 + p4 * q4
                                y1 = d1[b + f] + p0 * q1 + p1 * q2 + p2 * q3 + p3 * q4 + p4 * q5
                                y2 = d2[b + f] + p0 * q2 + p1 * q3 + p2 * q4 + p3 * q5 + p4 * q6
                                y3 = d3[b + f] + p0 * q3 + p1 * q4 + p2 * q5 + p3 * q6 + p4 * q7
                                d0[b + f], d1[b + f], d2[b + f], d3[b + f] = y0, y1, y2, y3
                            u += 5


@jit_contract
def _grad_weight(x: Array, gy: Array, zero: Array, sums: Array, total: Array) -> None:
    """total (k, k, C) += sums over x and gy (N, H, W C) alike; `sums`, zeros at first, has SURPLUS rows below."""
    samples, height, kernel, channels = x.shape[0], x.shape[1], total.shape[0], total.shape[2]
    pad, columns, width = (kernel - 1) // 2, sums.shape[2] // channels, x.shape[2] // channels
    for n in range(samples):
        summed = 0
        for i in range(0, height, ROWS):
            g0 = gy[n, i]
            g1 = gy[n, i + 1] if i + 1 < height else zero
            g2 = gy[n, i + 2] if i + 2 < height else zero
            g3 = gy[n, i + 3] if i + 3 < height else zero
            for j in range(0, width, columns):
                for v in range(kernel):
                    first, last = max(j, pad - v), min(j + columns, width, width + pad - v)
                    if first >= last:
                        continue
                    size = np.uint64((last - first) * channels)
                    b, s = np.uint64(first * channels), np.uint64((first + v - pad) * channels)
                    u = 0
                    while u < kernel:
                        h = i + u - pad
                        d0, d1, d2 = sums[u, v], sums[u + 1, v], sums[u + 2, v]
                        x0 = x[n, h] if 0 <= h < height else zero
                        x1 = x[n, h + 1] if 0 <= h + 1 < height else zero
                        x2 = x[n, h + 2] if 0 <= h + 2 < height else zero
                        x3 = x[n, h + 3] if 0 <= h + 3 < height else zero
                        x4 = x[n, h + 4] if 0 <= h + 4 < height else zero
                        x5 = x[n, h + 5] if 0 <= h + 5 < height else zero
                        if u + 3 >= kernel:
                            for f in range(size):
                                p0, p1, p2, p3 = g0[b + f], g1[b + f], g2[b + f], g3[b + f]
                                q0, q1, q2 = x0[s + f], x1[s + f], x2[s + f]
                                q3, q4, q5 = x3[s + f], x4[s + f], x5[s + f]
                                y0 = d0[f] + p0 * q0 + p1 * q1 + p2 * q2 + p3 * q3
                                y1 = d1[f] + p0 * q1 + p1 * q2 + p2 * q3 + p3 * q4
                                y2 = d2[f] + p0 * q2 + p1 * q3 + p2 * q4 + p3 * q5
                                d0[f], d1[f], d2[f] = y0, y1, y2
                            u += 3
                        else:
                            d3, d4 = sums[u + 3, v], sums[u + 4, v]
                            x6 = x[n, h + 6] if 0 <= h + 6 < height else zero
                            x7 = x[n, h + 7] if 0 <= h + 7 < height else zero
                            for f in range(size):
                                p0, p1, p2, p3 = g0[b + f], g1[b + f], g2[b + f], g3[b + f]
                                q0, q1, q2, q3 = x0[s + f], x1[s + f], x2[s + f], x3[s + f]
                                q4, q5, q6, q7 = x4[s + f], x5[s + f], x6[s + f], x7[s + f]
                                y0 = d0[f] + p0 * q0 + p1 * q1 + p2 * q2 + p3 * q3
                                y1 = d1[f] + p0 * q1 + p1 * q2 + p2 * q3 + p3 * q4
                                y2 = d2[f] + p0 * q2 + p1 * q3 + p2 * q4 + p3 * q5
                                y3 = d3[f] + p0 * q3 + p1 * q4 + p2 * q5 + p3 * q6
                                y4 = d4[f] + p0 * q4 + p1 * q5 + p2 * q6 + p3 * q7
                                d0[f], d1[f], d2[f], d3[f], d4[f] = y0, y1, y2, y3, y4
                            u += 5
            summed += ROWS * width
            if summed >= FEW or i + ROWS >= height:
                summed = 0
                for u in range(kernel):
                    for v in range(kernel):
                        for start in range(0, sums.shape[2], channels):
                            few, all_of_them = sums[u, v, start : start + channels], total[u, v]
                            for c in range(channels):
                                all_of_them[c] += few[c]
                                few[c] = 0.0
