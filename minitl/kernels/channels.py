"""Work on the channels of an (M, C) map: per-channel scale and shift, per-channel sums.

Sums run in float64, chunk by chunk of rows, and the chunks are added in their order.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array
from minitl.kernels import threads
from minitl.kernels.jit import jit


def affine(x: Array, scale: Array, shift: Array, out: Array) -> None:
    """out[m, c] = scale[c] x[m, c] + shift[c]; `out` may be `x`."""
    threads.run(lambda a, b: _affine(x[a:b], scale, shift, out[a:b]), threads.chunks(len(x), x.size))


def affine_sum(x: Array, a: Array, z: Array, b: Array, shift: Array, out: Array) -> None:
    """out[m, c] = a[c] x[m, c] + b[c] z[m, c] + shift[c]."""
    spans = threads.chunks(len(x), x.size)
    threads.run(lambda i, j: _affine_sum(x[i:j], a, z[i:j], b, shift, out[i:j]), spans)


def sums(x: Array) -> Array:
    """sum over m of x[m, c], as float64 (C,)."""
    spans = threads.chunks(len(x), x.size)
    partial = np.zeros((len(spans), x.shape[1]))
    step = spans[0][1] or 1
    threads.run(lambda a, b: _sums(x[a:b], partial[a // step]), spans)
    total: Array = np.add.reduce(partial, axis=0)
    return total


def dots(x: Array, z: Array) -> Array:
    """sum over m of x[m, c] z[m, c], as float64 (C,)."""
    spans = threads.chunks(len(x), x.size)
    partial = np.zeros((len(spans), x.shape[1]))
    step = spans[0][1] or 1
    threads.run(lambda a, b: _dots(x[a:b], z[a:b], partial[a // step]), spans)
    total: Array = np.add.reduce(partial, axis=0)
    return total


@jit
def _affine(x: Array, scale: Array, shift: Array, out: Array) -> None:
    for m in range(x.shape[0]):
        source, target = x[m], out[m]
        for c in range(scale.size):
            target[c] = scale[c] * source[c] + shift[c]


@jit
def _affine_sum(x: Array, a: Array, z: Array, b: Array, shift: Array, out: Array) -> None:
    for m in range(x.shape[0]):
        first, second, target = x[m], z[m], out[m]
        for c in range(a.size):
            target[c] = a[c] * first[c] + b[c] * second[c] + shift[c]


@jit
def _sums(x: Array, total: Array) -> None:
    for m in range(x.shape[0]):
        row = x[m]
        for c in range(total.size):
            total[c] += row[c]


@jit
def _dots(x: Array, z: Array, total: Array) -> None:
    for m in range(x.shape[0]):
        first, second = x[m], z[m]
        for c in range(total.size):
            total[c] += np.float64(first[c]) * np.float64(second[c])
