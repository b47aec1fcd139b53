"""Dense k x k convolution as matrix products (the stem of a network: three channels in, few out).

    y[n, i, j, o] = sum over (u, v, c) of w[u, v, c, o] x[n, s i + u - p, s j + v - p, c],  p = (k - 1) / 2,

where x is zero outside. With the patch of a position, the k k C numbers of x that it reads, as a
row of P, this is y = P W, and gW = P^T gy, for W (k k C, O). P would be many times as large as x:
so patches are gathered for a few rows of the output at a time. `conv_ordered` is the plain form.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl.arrays import Array, Shape, as_rows, size
from minitl.kernels import blas, conv_ordered, threads
from minitl.kernels.jit import jit

PATCHES = 1 << 16  # numbers in the patches of a few rows, about: whole rows, at least one

grad_input = conv_ordered.grad_input  # of a stem nobody asks for it


def forward(x: Array, w: Array, stride: int, out: Array) -> None:
    """out (N, Ho, Wo, O) = x (N, H, W, C) convolved with w (k, k, C, O)."""
    matrix = w.reshape(-1, w.shape[3])

    def product(chunk: int, patches: Array, rows: Array) -> None:
        np.matmul(patches, matrix, out=rows)

    _each_few_rows(x, w.shape, stride, out, product)


def grad_weight(x: Array, gy: Array, stride: int, out: Array) -> None:
    """out (k, k, C, O): gw[u, v, c, o] = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] gy[n, i, j, o].

    Summed over a few rows in the arrays' dtype, then in float64, chunk by chunk of samples, and
    the chunks in their order.
    """
    few = np.empty((len(_spans(out.shape, gy.shape)), size(out.shape[:3]), out.shape[3]), out.dtype)
    total = np.zeros(few.shape)

    def product(chunk: int, patches: Array, rows: Array) -> None:
        np.matmul(patches.T, rows, out=few[chunk])
        _add(few[chunk], total[chunk])

    _each_few_rows(x, out.shape, stride, gy, product)
    for partial in total[1:]:
        total[0] += partial
    out[:] = total[0].reshape(out.shape)


def workspace(y: Shape, w: Shape, itemsize: int) -> int:
    """Bytes that `forward` allocates besides `out`, for y and w of these shapes."""
    return len(_spans(w, y)) * _few(w, y) * y[2] * size(w[:3]) * itemsize


def grad_weight_workspace(y: Shape, w: Shape, itemsize: int) -> int:
    """Bytes that `grad_weight` allocates besides `out`."""
    return workspace(y, w, itemsize) + len(_spans(w, y)) * size(w) * (8 + itemsize)


def _spans(w: Shape, y: Shape) -> list[tuple[int, int]]:
    return threads.chunks(y[0], size(y) * size(w[:3]))


def _few(w: Shape, y: Shape) -> int:
    """Rows of the output whose patches are gathered at a time."""
    return max(1, min(y[1], PATCHES // (y[2] * size(w[:3]))))


def _each_few_rows(x: Array, w: Shape, stride: int, y: Array, product: Callable[[int, Array, Array], None]) -> None:
    """Call `product(chunk, patches, rows)` with the patches of a few rows of y, and those rows, again and again."""
    spans, few = _spans(w, y.shape), _few(w, y.shape)
    step, flat = spans[0][1], x.reshape(*x.shape[:2], -1)
    gathered = np.empty((len(spans), few, y.shape[2], w[0], w[1] * w[2]), x.dtype)

    def work(a: int, b: int) -> None:
        with blas.worker():
            for n in range(a, b):
                for i in range(0, y.shape[1], few):
                    rows = y[n, i : i + few]
                    patches = gathered[a // step, : len(rows)]
                    _gather(flat[n], i, stride, patches)
                    product(a // step, patches.reshape(-1, size(w[:3])), as_rows(rows))

    with blas.one_thread():
        threads.run(work, spans)


@jit
def _gather(x: Array, first: int, stride: int, patches: Array) -> None:
    """patches (rows, Wo, k, k C): the patch of each position of y from row `first` on, for one sample x (H, W C).

    A row of a patch is k C numbers side by side in x. Number t of it is copied for all positions of
    a row at once: a long loop, whose indices are unsigned so that none is tested for being negative.
    """
    height, line = x.shape
    rows, columns, kernel, run = patches.shape
    pad, step = (kernel - 1) // 2, stride * run // kernel
    outside = pad * run // kernel  # numbers of a row's first patch
    by, on = np.uint64(step), np.uint64(kernel * run)
    for i in range(rows):
        flat = patches[i].reshape(columns * kernel * run)
        for u in range(kernel):
            h = stride * (first + i) + u - pad
            if h < 0 or h >= height:
                patches[i, :, u] = 0.0
                continue
            source = x[h]
            for t in range(run):
                begin = min(columns, max(0, (outside - t + step - 1) // step))
                end = max(begin, min(columns, (line - 1 + outside - t) // step + 1))
                for j in range(begin):
                    patches[i, j, u, t] = 0.0
                for j in range(end, columns):
                    patches[i, j, u, t] = 0.0
                place, pixel = np.uint64((begin * kernel + u) * run + t), np.uint64(begin * step + t - outside)
                for j in range(np.uint64(end - begin)):
                    flat[place + j * on] = source[pixel + j * by]


@jit
def _add(few: Array, total: Array) -> None:
    """total += few; NumPy would convert `few` in a buffer first."""
    for m in range(few.shape[0]):
        source, target = few[m], total[m]
        for o in range(source.size):
            target[o] += source[o]
