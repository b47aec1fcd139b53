"""Elementwise loops that NumPy could only do with temporaries: activations and their slopes."""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, as_rows
from minitl.kernels import threads
from minitl.kernels.jit import jit


def hard_swish(x: Array, out: Array) -> None:
    """out = x * relu6(x + 3) / 6, computed in that order; flat arrays."""
    threads.run(lambda a, b: _hard_swish(x[a:b], out[a:b]), threads.chunks(x.size, x.size))


def hard_swish_backward(x: Array, gy: Array, out: Array) -> None:
    """out = gy * (0 where x <= -3, 1 where x >= 3, else (2x + 3) / 6); flat arrays."""
    spans = threads.chunks(x.size, x.size)
    threads.run(lambda a, b: _hard_swish_backward(x[a:b], gy[a:b], out[a:b]), spans)


def hard_swish_backward_from_output(y: Array, right: Array, gy: Array) -> Array:
    """gy times Hard-Swish's slope at the x whose output is y, a new array; `right` is the packed mask of x >= -3/2."""
    out = np.empty_like(gy)
    rows = [as_rows(a) for a in (y, gy, out)]
    threads.run(
        lambda a, b: _from_output(rows[0][a:b], right[a // 8 : -(-b // 8)], rows[1][a:b], rows[2][a:b]),
        threads.chunks(len(rows[0]), y.size, align=8),
    )
    return out


def where_inside(gy: Array, y: Array, top: float) -> Array:
    """gy where 0 < y < top, else 0, a new array."""
    out = np.empty_like(gy)
    flat = [a.reshape(-1) for a in (gy, y, out)]
    spans = threads.chunks(y.size, y.size)
    threads.run(lambda a, b: _where_inside(flat[0][a:b], flat[1][a:b], y.dtype.type(top), flat[2][a:b]), spans)
    return out


def where_positive_sign(gy: Array, y: Array) -> Array:
    """gy where the sign bit of y is clear, else 0, a new array."""
    out = np.empty_like(gy)
    flat = [a.reshape(-1) for a in (gy, y, out)]
    spans = threads.chunks(y.size, y.size)
    threads.run(lambda a, b: _where_positive_sign(flat[0][a:b], flat[1][a:b], flat[2][a:b]), spans)
    return out


def encode(x: Array, borders: Array) -> Array:
    """How many of the sorted borders are at most x, as new uint8 codes."""
    out = np.empty(x.shape, np.uint8)
    flat, codes, limits = x.reshape(-1), out.reshape(-1), borders.astype(x.dtype)
    threads.run(lambda a, b: _encode(flat[a:b], limits, codes[a:b]), threads.chunks(x.size, x.size * len(borders)))
    return out


@jit
def _hard_swish(x: Array, out: Array) -> None:
    zero, three, six = x.dtype.type(0), x.dtype.type(3), x.dtype.type(6)
    for i in range(x.size):
        out[i] = x[i] * min(max(x[i] + three, zero), six) / six


@jit
def _hard_swish_backward(x: Array, gy: Array, out: Array) -> None:
    two, three, six = x.dtype.type(2), x.dtype.type(3), x.dtype.type(6)
    for i in range(x.size):
        inside = gy[i] * ((two * x[i] + three) / six)
        out[i] = 0 if x[i] <= -three else gy[i] if x[i] >= three else inside


@jit
def _from_output(y: Array, right: Array, gy: Array, out: Array) -> None:
    zero, three, six = y.dtype.type(0), y.dtype.type(3), y.dtype.type(6)
    nine, twenty_four = y.dtype.type(9), y.dtype.type(24)
    for m in range(y.shape[0]):
        values, slopes, target, bits, shift = y[m], gy[m], out[m], right[m // 8], m % 8
        for c in range(values.size):
            root = np.sqrt(max(nine + twenty_four * values[c], zero)) / six
            if (bits[c] >> shift) & 1:
                target[c] = slopes[c] if values[c] >= three else slopes[c] * root
            else:
                target[c] = zero if values[c] == zero else -(slopes[c] * root)


@jit
def _where_inside(gy: Array, y: Array, top: float, out: Array) -> None:
    for i in range(y.size):
        out[i] = gy[i] if y[i] > 0 and y[i] < top else 0


@jit
def _where_positive_sign(gy: Array, y: Array, out: Array) -> None:
    for i in range(y.size):
        out[i] = 0 if np.signbit(y[i]) else gy[i]


@jit
def _encode(x: Array, borders: Array, out: Array) -> None:
    for i in range(x.size):
        code = 0
        for border in borders:
            code += x[i] >= border
        out[i] = code
