"""Elementwise work on the rows of an (M, C) map, in place and on one thread.

For callers that part a batch among threads themselves and want to touch a map again while it is
still in the cache: shift, activation and packing of its codes in one go, and their way back.
Codes are packed as in `bits`; `first` is the position, in the whole map, of the first row given.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array
from minitl.kernels.jit import jit


@jit
def activate(
    x: Array,
    shift: Array,
    hard_swish: bool,
    top: float,
    bits: int,
    borders: Array,
    packed: Array,
    edge: Array,
    first: int,
) -> None:
    """x = act(x + shift), and with `bits` the packed codes of x + shift.

    act is Hard-Swish, or min(max(., 0), top). A code is how many of the `borders`, one a bit, are
    at most the value. A byte that rows before the first one share is written to `edge` instead of
    `packed`, for another thread may be at work on it. Both are 0 before.
    """
    zero, three, six, most = x.dtype.type(0), x.dtype.type(3), x.dtype.type(6), x.dtype.type(top)
    low, high = x.dtype.type(borders[0]), x.dtype.type(borders[1])
    shared = first * bits // 8 if first * bits % 8 else -1
    for m in range(x.shape[0]):
        row = x[m]
        for c in range(shift.size):
            row[c] += shift[c]
        if bits:
            at = (first + m) * bits
            codes = edge if at // 8 == shared else packed[at // 8]
            one, both = np.uint8(1 << at % 8), np.uint8(3 << at % 8)
            for c in range(shift.size):
                codes[c] |= one if row[c] >= low else np.uint8(0)
            if bits == 2:
                for c in range(shift.size):  # from 1 to 2
                    codes[c] ^= both if row[c] >= high else np.uint8(0)
        if hard_swish:
            for c in range(shift.size):
                row[c] = row[c] * min(max(row[c] + three, zero), six) / six
        else:
            for c in range(shift.size):
                row[c] = min(max(row[c], zero), most)


@jit
def keep_where_one(g: Array, packed: Array, bits: int, first: int) -> None:
    """g = g where the packed code is 1, else 0: a mask's 1 lets pass, and so does ReLU6's 1 (between)."""
    zero = g.dtype.type(0)
    for m in range(g.shape[0]):
        at = (first + m) * bits
        row, codes = g[m], packed[at // 8]
        which, one = np.uint8((2**bits - 1) << at % 8), np.uint8(1 << at % 8)
        for c in range(row.size):
            row[c] = row[c] if codes[c] & which == one else zero


@jit
def moments(x: Array, mean: Array, squares: Array) -> None:
    """The mean of each channel, and the sum of squared deviations from it, in float64.

    In one pass, on deviations from the first row, which cancels next to nothing (Chan, Golub &
    LeVeque 1983, DOI 10.1080/00031305.1983.10483115).
    """
    base = x[0]
    mean[:] = 0.0
    squares[:] = 0.0
    for m in range(x.shape[0]):
        row = x[m]
        for c in range(mean.size):
            deviation = np.float64(row[c]) - np.float64(base[c])
            mean[c] += deviation
            squares[c] += deviation * deviation
    for c in range(mean.size):
        squares[c] -= mean[c] * mean[c] / x.shape[0]
        mean[c] = base[c] + mean[c] / x.shape[0]


@jit
def join_moments(counts: Array, means: Array, squares: Array, mean: Array, square: Array) -> None:
    """The moments of all parts together, from those of each: its count, means and squared deviations."""
    everything = 0
    for part in range(counts.size):
        everything += counts[part]
    for c in range(mean.size):
        mean[c] = 0.0
        for part in range(counts.size):
            mean[c] += counts[part] * means[part, c]
        mean[c] /= everything
        square[c] = 0.0
        for part in range(counts.size):
            apart = means[part, c] - mean[c]
            square[c] += squares[part, c] + counts[part] * apart * apart


@jit
def normalise(x: Array, mean: Array, inv_std: Array, weight: Array, bias: Array, out: Array) -> None:
    """x = (x - mean) inv_std, in place, and out = weight x + bias of that."""
    for m in range(x.shape[0]):
        row, target = x[m], out[m]
        for c in range(mean.size):
            row[c] = (row[c] - mean[c]) * inv_std[c]
            target[c] = weight[c] * row[c] + bias[c]


@jit
def hard_swish_slope(g: Array, x: Array) -> None:
    """g = g times Hard-Swish's slope at x: 0 where x <= -3, 1 where x >= 3, else (2x + 3) / 6; in place."""
    zero, one, two = g.dtype.type(0), g.dtype.type(1), g.dtype.type(2)
    three, six = g.dtype.type(3), g.dtype.type(6)
    for m in range(g.shape[0]):
        row, at = g[m], x[m]
        for c in range(row.size):
            slope = (two * at[c] + three) / six
            row[c] *= zero if at[c] <= -three else one if at[c] >= three else slope


@jit
def slope_over_output(y: Array, g: Array, hard_swish: bool, top: float, packed: Array, first: int) -> None:
    """y = g times the activation's slope at the x whose output is y, in place.

    The slope is 1 where 0 < y < top, else 0; of Hard-Swish, +- sqrt(9 + 24 y) / 6, + where the
    packed mask of x >= -3/2 says so, 1 where y >= 3, and 0 where y = 0 and not so (see `ops.hard_swish`).
    """
    zero, one, three, six = y.dtype.type(0), y.dtype.type(1), y.dtype.type(3), y.dtype.type(6)
    nine, twenty_four, most = y.dtype.type(9), y.dtype.type(24), y.dtype.type(top)
    for m in range(y.shape[0]):
        row, slopes = y[m], g[m]
        if hard_swish:
            right, bit = packed[(first + m) // 8], np.uint8(1 << (first + m) % 8)
            for c in range(row.size):
                root = np.sqrt(max(nine + twenty_four * row[c], zero)) / six
                left_slope = zero if row[c] == zero else -root
                right_slope = one if row[c] >= three else root
                row[c] = slopes[c] * (right_slope if right[c] & bit else left_slope)
        else:
            for c in range(row.size):
                row[c] = slopes[c] if row[c] > zero and row[c] < most else zero


@jit
def combine(x: Array, of_x: Array, z: Array, of_z: Array, shift: Array) -> None:
    """x = of_x x + of_z z + shift, in place; the last three of a number a channel."""
    for m in range(x.shape[0]):
        row, other = x[m], z[m]
        for c in range(shift.size):
            row[c] = of_x[c] * row[c] + of_z[c] * other[c] + shift[c]


@jit
def sums(g: Array, total: Array) -> None:
    """total[c] = sum over m of g[m, c], in float64."""
    total[:] = 0.0
    for m in range(g.shape[0]):
        row = g[m]
        for c in range(total.size):
            total[c] += row[c]


@jit
def sums_and_dots(g: Array, x: Array, total: Array, along: Array) -> None:
    """total[c] = sum over m of g[m, c] and along[c] = sum over m of g[m, c] x[m, c], in float64."""
    total[:] = 0.0
    along[:] = 0.0
    for m in range(g.shape[0]):
        row, values = g[m], x[m]
        for c in range(total.size):
            slope = np.float64(row[c])
            total[c] += slope
            along[c] += slope * np.float64(values[c])


@jit
def means(x: Array, total: Array, out: Array) -> None:
    """out[n, c] = the mean of x[n, h, w, c] over h and w, summed in float64 (in `total`, of one number a channel)."""
    for n in range(x.shape[0]):
        total[:] = 0.0
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                pixel = x[n, h, w]
                for c in range(total.size):
                    total[c] += pixel[c]
        mean = out[n]
        for c in range(total.size):
            mean[c] = total[c] / (x.shape[1] * x.shape[2])


@jit
def sample_dots(g: Array, x: Array, total: Array, out: Array) -> None:
    """out[n, c] = sum over h and w of g[n, h, w, c] x[n, h, w, c], in float64 (in `total`)."""
    for n in range(x.shape[0]):
        total[:] = 0.0
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                pixel, other = g[n, h, w], x[n, h, w]
                for c in range(total.size):
                    total[c] += np.float64(pixel[c]) * np.float64(other[c])
        dot = out[n]
        for c in range(total.size):
            dot[c] = total[c]


@jit
def gate_and_add(g: Array, gate: Array, more: Array) -> None:
    """g[n, h, w, c] = gate[n, c] g[n, h, w, c] + more[n, c], in place."""
    for n in range(g.shape[0]):
        factors, rest = gate[n], more[n]
        for h in range(g.shape[1]):
            for w in range(g.shape[2]):
                pixel = g[n, h, w]
                for c in range(factors.size):
                    pixel[c] = factors[c] * pixel[c] + rest[c]
