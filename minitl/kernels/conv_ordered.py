"""Dense k x k convolution (the stem of a network: three channels in, few out), as ordered loops.

    y[n, i, j, o] = sum over (u, v, c) of w[u, v, c, o] x[n, s i + u - p, s j + v - p, c],  p = (k - 1) / 2,

where x is zero outside. Filters are (k, k, C, O): the innermost loop runs over the outputs. The
order of operations is that of the text, on any machine; `conv` is the fast form.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.kernels import threads
from minitl.kernels.jit import jit


def forward(x: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, Ho, Wo, O) = x (N, H, W, C) convolved with w (k, k, C, O)."""
    threads.run(lambda a, b: _forward(x[a:b], w, stride, out[a:b]), _spans(w, out))


def grad_input(gy: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, H, W, C): every gy[n, i, j, :] is sent back through the taps that made it."""
    threads.run(lambda a, b: _grad_input(gy[a:b], w, stride, out[a:b]), _spans(w, gy))


def grad_weight(x: Array, gy: Array, stride: int, out: Array) -> None:
    """out (k, k, C, O): gw[u, v, c, o] = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] gy[n, i, j, o].

    Summed in float64, per sample and then over the samples (`grad_weight_workspace` bytes).
    """
    total = np.zeros((len(x), *out.shape))
    threads.run(lambda a, b: _grad_weight(x[a:b], gy[a:b], stride, total[a:b]), _spans(out, gy))
    for partial in total[1:]:
        total[0] += partial
    out[:] = total[0]


def workspace(y: Shape, w: Shape, itemsize: int) -> int:
    """Bytes that `forward` allocates besides `out`: none."""
    return 0


def grad_weight_workspace(y: Shape, w: Shape, itemsize: int) -> int:
    """Bytes that `grad_weight` allocates besides `out`, for y and w of these shapes."""
    return y[0] * size(w) * 8


def _spans(w: Array, out: Array) -> list[tuple[int, int]]:
    return threads.chunks(out.shape[0], out.size * w.shape[0] * w.shape[1] * w.shape[2])


@jit
def _forward(x: Array, w: Array, stride: int, out: Array) -> None:
    samples, height, width, inputs = x.shape
    rows, columns, kernel, outputs = out.shape[1], out.shape[2], w.shape[0], w.shape[3]
    pad = (kernel - 1) // 2
    out[:, :, :, :] = 0.0
    for n in range(samples):
        for i in range(rows):
            for u in range(max(0, pad - stride * i), min(kernel, height + pad - stride * i)):
                line = x[n, stride * i + u - pad]
                for j in range(columns):
                    target = out[n, i, j]
                    for v in range(max(0, pad - stride * j), min(kernel, width + pad - stride * j)):
                        pixel = line[stride * j + v - pad]
                        for c in range(inputs):
                            value, taps = pixel[c], w[u, v, c]
                            for o in range(outputs):
                                target[o] += taps[o] * value


@jit
def _grad_input(gy: Array, w: Array, stride: int, out: Array) -> None:
    samples, height, width, inputs = out.shape
    rows, columns, kernel, outputs = gy.shape[1], gy.shape[2], w.shape[0], w.shape[3]
    pad = (kernel - 1) // 2
    out[:, :, :, :] = 0.0
    for n in range(samples):
        for i in range(rows):
            for u in range(max(0, pad - stride * i), min(kernel, height + pad - stride * i)):
                line = out[n, stride * i + u - pad]
                for j in range(columns):
                    slope = gy[n, i, j]
                    for v in range(max(0, pad - stride * j), min(kernel, width + pad - stride * j)):
                        pixel = line[stride * j + v - pad]
                        for c in range(inputs):
                            taps = w[u, v, c]
                            total = pixel[c]
                            for o in range(outputs):
                                total += taps[o] * slope[o]
                            pixel[c] = total


@jit
def _grad_weight(x: Array, gy: Array, stride: int, total: Array) -> None:
    samples, height, width, inputs = x.shape
    rows, columns, kernel, outputs = gy.shape[1], gy.shape[2], total.shape[1], gy.shape[3]
    pad = (kernel - 1) // 2
    for n in range(samples):
        for i in range(rows):
            for u in range(max(0, pad - stride * i), min(kernel, height + pad - stride * i)):
                line = x[n, stride * i + u - pad]
                for j in range(columns):
                    slope = gy[n, i, j]
                    for v in range(max(0, pad - stride * j), min(kernel, width + pad - stride * j)):
                        pixel = line[stride * j + v - pad]
                        for c in range(inputs):
                            value, taps = pixel[c], total[n, u, v, c]
                            for o in range(outputs):
                                taps[o] += value * slope[o]
