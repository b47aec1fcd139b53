"""Depthwise convolution as plain loops: every channel with a k x k filter of its own.

    y[n, i, j, c] = sum over (u, v) of w[u, v, c] x[n, s i + u - p, s j + v - p, c],  p = (k - 1) / 2,

where x is zero outside. Filters are (k, k, C), so the innermost loop runs over channels that lie
side by side. Instead of testing each tap against the border, each loop runs only over the rows
and columns whose tap lies inside (`first` and `last`). The order of operations is that of the
text, on any machine; `depthwise` is the fast form.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape
from minitl.kernels import threads
from minitl.kernels.jit import jit


def forward(x: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, Ho, Wo, C) = x (N, H, W, C) convolved with w (k, k, C)."""
    threads.run(lambda a, b: correlate(x[a:b], w, stride, out[a:b]), _spans(w, out))


def grad_input(gy: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, H, W, C): gx[n, s i + u - p, s j + v - p, c] = sum of w[u, v, c] gy[n, i, j, c]."""
    threads.run(lambda a, b: correlate_back(gy[a:b], w, stride, out[a:b]), _spans(w, gy))


def grad_weight(x: Array, gy: Array, stride: int, out: Array) -> None:
    """out (k, k, C): gw[u, v, c] = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] gy[n, i, j, c].

    Summed blockwise: along a row in the arrays' dtype, then over the rows of a sample and over
    the samples in float64 (`grad_weight_workspace` bytes).
    """
    samples, channels = len(x), x.shape[3]
    line, total = np.empty((samples, channels), x.dtype), np.zeros((samples, *out.shape))

    def work(a: int, b: int) -> None:
        for n in range(a, b):
            add_products(x[n : n + 1], gy[n : n + 1], stride, line[n], total[n])

    threads.run(work, _spans(out, gy))
    for partial in total[1:]:
        total[0] += partial
    out[:] = total[0]


def workspace(y: Shape, kernel: int, stride: int, itemsize: int) -> int:
    """Bytes that `forward` and `grad_input` allocate besides `out`: none."""
    return 0


def grad_weight_workspace(y: Shape, kernel: int, stride: int, itemsize: int) -> int:
    """Bytes that `grad_weight` allocates besides `out`, for y of that shape."""
    return y[0] * y[3] * (itemsize + 8 * kernel * kernel)


def _spans(w: Array, out: Array) -> list[tuple[int, int]]:
    return threads.chunks(out.shape[0], out.size * w.shape[0] * w.shape[1])


@jit
def correlate(x: Array, w: Array, stride: int, out: Array) -> None:
    """`forward`, on one thread."""
    samples, height, width, channels = x.shape
    rows, columns, kernel = out.shape[1], out.shape[2], w.shape[0]
    pad = (kernel - 1) // 2
    for n in range(samples):
        for i in range(rows):
            line = out[n, i]
            line[:, :] = 0.0
            for u in range(kernel):
                h = stride * i + u - pad
                if h < 0 or h >= height:
                    continue
                for v in range(kernel):
                    first = max(0, (pad - v + stride - 1) // stride)
                    last = min(columns, (width - 1 - v + pad) // stride + 1)
                    taps = w[u, v]
                    for j in range(first, last):
                        source, target = x[n, h, stride * j + v - pad], line[j]
                        for c in range(channels):
                            target[c] += taps[c] * source[c]


@jit
def correlate_back(gy: Array, w: Array, stride: int, out: Array) -> None:
    """`grad_input`, on one thread."""
    samples, height, width, channels = out.shape
    rows, columns, kernel = gy.shape[1], gy.shape[2], w.shape[0]
    pad = (kernel - 1) // 2
    out[:, :, :, :] = 0.0
    for n in range(samples):
        for i in range(rows):
            for u in range(kernel):
                h = stride * i + u - pad
                if h < 0 or h >= height:
                    continue
                for v in range(kernel):
                    first = max(0, (pad - v + stride - 1) // stride)
                    last = min(columns, (width - 1 - v + pad) // stride + 1)
                    taps = w[u, v]
                    for j in range(first, last):
                        source, target = gy[n, i, j], out[n, h, stride * j + v - pad]
                        for c in range(channels):
                            target[c] += taps[c] * source[c]


@jit
def add_products(x: Array, gy: Array, stride: int, line: Array, total: Array) -> None:
    """total (k, k, C) += the products of x and gy, summed along a row in `line` (C,)."""
    samples, height, width, channels = x.shape
    rows, columns, kernel = gy.shape[1], gy.shape[2], total.shape[0]
    pad = (kernel - 1) // 2
    for n in range(samples):
        for i in range(rows):
            for u in range(kernel):
                h = stride * i + u - pad
                if h < 0 or h >= height:
                    continue
                for v in range(kernel):
                    first = max(0, (pad - v + stride - 1) // stride)
                    last = min(columns, (width - 1 - v + pad) // stride + 1)
                    line[:] = 0.0
                    for j in range(first, last):
                        image, slope = x[n, h, stride * j + v - pad], gy[n, i, j]
                        for c in range(channels):
                            line[c] += image[c] * slope[c]
                    sum_of_tap = total[u, v]
                    for c in range(channels):
                        sum_of_tap[c] += line[c]
