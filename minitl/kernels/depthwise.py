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

import numpy as np

from minitl.arrays import Array, Shape
from minitl.kernels import depthwise_ordered, threads
from minitl.kernels.jit import jit_contract

ROWS = 4  # of the output, in a pass
PASS = 512  # numbers of a row in a pass, about: whole columns, at least one
SURPLUS = 2  # taps by which the last three or five may be beyond the filter
FEW = 128  # positions: as many, and the rest of their rows, are summed in the arrays' dtype


def forward(x: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, Ho, Wo, C) = x (N, H, W, C) convolved with w (k, k, C)."""
    if _plain(out.shape, stride):
        depthwise_ordered.forward(x, w, stride, out)
    else:
        _gather(x, w, out)


def grad_input(gy: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, H, W, C): gx[n, s i + u - p, s j + v - p, c] = sum of w[u, v, c] gy[n, i, j, c].

    At stride 1 it is the convolution of gy with the filter turned by half.
    """
    if _plain(gy.shape, stride):
        depthwise_ordered.grad_input(gy, w, stride, out)
    else:
        _gather(gy, w[::-1, ::-1], out)


def grad_weight(x: Array, gy: Array, stride: int, out: Array) -> None:
    """out (k, k, C): gw[u, v, c] = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] gy[n, i, j, c].

    Summed blockwise: over some rows in the arrays' dtype, then over the rows of a sample and over
    samples in float64, chunk by chunk of samples, and the chunks in their order.
    """
    if _plain(gy.shape, stride):
        depthwise_ordered.grad_weight(x, gy, stride, out)
        return
    kernel, channels = out.shape[1:]
    spans, zero = _spans(kernel, gy.shape), np.zeros(math.prod(x.shape[2:]), x.dtype)
    sums = np.zeros((len(spans), kernel + SURPLUS, kernel, _columns(gy.shape) * channels), x.dtype)
    total, step = np.zeros((len(spans), *out.shape)), spans[0][1]

    def work(a: int, b: int) -> None:
        _grad_weight(_flat(x[a:b]), _flat(gy[a:b]), zero, sums[a // step], total[a // step])

    threads.run(work, spans)
    for partial in total[1:]:
        total[0] += partial
    out[:] = total[0]


def workspace(y: Shape, kernel: int, stride: int, itemsize: int) -> int:
    """Bytes that `forward` and `grad_input` allocate besides `out`, for y of that shape."""
    return 0 if _plain(y, stride) else ((kernel + SURPLUS) * kernel * _columns(y) + y[2]) * y[3] * itemsize


def grad_weight_workspace(y: Shape, kernel: int, stride: int, itemsize: int) -> int:
    """Bytes that `grad_weight` allocates besides `out`, for y of that shape."""
    if _plain(y, stride):
        return depthwise_ordered.grad_weight_workspace(y, kernel, stride, itemsize)
    sums = (kernel + SURPLUS) * kernel * _columns(y) * itemsize + kernel * kernel * 8
    return (len(_spans(kernel, y)) * sums + y[2] * itemsize) * y[3]


def _plain(y: Shape, stride: int) -> bool:
    return stride > 1 or y[1] < ROWS


def _columns(y: Shape) -> int:
    """Of a pass."""
    return max(1, min(y[2], PASS // y[3]))


def _spans(kernel: int, y: Shape) -> list[tuple[int, int]]:
    return threads.chunks(y[0], math.prod(y) * kernel * kernel)


def _flat(x: Array) -> Array:
    return x.reshape(*x.shape[:2], -1)


def _gather(x: Array, w: Array, out: Array) -> None:
    kernel, channels = w.shape[1:]
    taps, zero = np.zeros((kernel + SURPLUS, kernel, _columns(x.shape), channels), w.dtype), np.zeros_like(x[0, 0])
    taps[:kernel] = w[:, :, None]
    repeated, outside = taps.reshape(*taps.shape[:2], -1), zero.reshape(-1)
    threads.run(
        lambda a, b: _correlate(_flat(x[a:b]), repeated, channels, outside, _flat(out[a:b])), _spans(kernel, x.shape)
    )


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
