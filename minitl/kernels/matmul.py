"""Matrix product in two forms: BLAS, and loops whose order of summation is fixed.

A pointwise convolution and a linear layer are three of these, with x (M, I), W (O, I), gy (M, O):
    y = x W^T,   gx = gy W,   gW = gy^T x.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array
from minitl.kernels import blas, threads
from minitl.kernels.jit import jit

WORTH_A_PRODUCT = 96  # rows or columns; of fewer BLAS makes little speed


def matmul(a: Array, b: Array, out: Array, *, portable: bool = False) -> None:
    """out = a @ b for a (M, K), b (K, N), out (M, N).

    BLAS on one thread over chunks of rows of `a` or of columns of `b`, whichever are more: fast,
    and the same bytes on any number of threads of one machine. `portable=True` sums over
    k = 0, 1, ... in float64 and rounds once: the same bytes on any machine.
    """
    (m, k), n = a.shape, b.shape[1]
    if portable:
        spans = threads.chunks(m, m * k * n)
        sums = np.empty((len(spans), n))
        step = spans[0][1]
        threads.run(lambda i, j: _ordered(a[i:j], b, sums[i // step], out[i:j]), spans)
        return
    if n > m:
        a, b, out = b.T, a.T, out.T
    spans = threads.chunks(len(a), m * k * n, least=WORTH_A_PRODUCT)
    with blas.one_thread():
        threads.run(lambda i, j: _blas(a[i:j], b, out[i:j]), spans)


def workspace(a: tuple[int, int], b: tuple[int, int], *, portable: bool) -> int:
    """Bytes `matmul` allocates besides `out`, from the shapes of its operands."""
    (m, k), n = a, b[1]
    return len(threads.chunks(m, m * k * n)) * n * 8 if portable else 0


def _blas(a: Array, b: Array, out: Array) -> None:
    with blas.worker():
        np.matmul(a, b, out=out)


@jit
def _ordered(a: Array, b: Array, total: Array, out: Array) -> None:
    for i in range(a.shape[0]):
        total[:] = 0.0
        for k in range(a.shape[1]):
            factor, row = np.float64(a[i, k]), b[k]
            for j in range(total.size):
                total[j] += factor * row[j]
        for j in range(total.size):
            out[i, j] = total[j]
