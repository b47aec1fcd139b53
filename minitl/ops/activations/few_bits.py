"""Few-bit slopes: the piecewise constant function of 2^bits levels nearest to Hard-Swish's slope.

After Novikov et al., "Few-bit Backward: Quantized Gradients of Activation Functions for Memory
Footprint Reduction" (ICML 2023, arXiv:2202.00441): forward keeps the number of the interval x
lies in, backward multiplies gy by that interval's level. Borders b and levels l minimise

    sum over intervals of the integral of (h'(x) - l_i)^2 over [b_i, b_i+1],   on [-10, 10] with equal weight.

On an interval the best level is the mean of h', which is (h(b_i+1) - h(b_i)) / (b_i+1 - b_i). The
borders are found by dynamic programming on a grid (the global optimum among its points), and then
moved to where they belong between the points: where both jumps of h' are borders, the intervals
between them are of equal length; else a border is where h' passes the middle of its two levels.
With one bit this gives border 0 and levels 0 and 1: MobileTL's sign rule.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array

REACH = 10.0
GRID = 1000  # intervals of the grid; 0 and both kinks are among its points
POLISH = 200  # rounds of moving borders and levels in turn, for the few borders that have no closed form


class Levels(NamedTuple):
    """Sorted borders (2^bits - 1), and a level for each interval between them (2^bits)."""

    borders: tuple[float, ...]
    levels: tuple[float, ...]


@cache
def hard_swish_levels(bits: int) -> Levels:
    """The best borders and levels for that many bits."""
    points = np.linspace(-REACH, REACH, GRID + 1)
    edges = points[_best_path(_errors(points), 2**bits)]
    kinks = np.flatnonzero(np.abs(np.abs(edges) - 3) < REACH / GRID)
    if len(kinks) == 2:
        edges, means = _parted_evenly(edges, *kinks)
    else:
        for _ in range(POLISH):
            means = _means(edges)
            middle = 1.5 * (means[:-1] + means[1:] - 1)  # where h' passes the middle of two levels
            edges[1:-1] = np.where(np.abs(edges[1:-1]) < 3, middle, edges[1:-1])
            edges = (edges - edges[::-1]) / 2  # h'(-x) = 1 - h'(x), so the best borders are symmetric
        means = _means(edges)
    return Levels(tuple(edges[1:-1].tolist()), tuple(means.tolist()))


def _parted_evenly(edges: Array, first: int, last: int) -> tuple[Array, Array]:
    """Edges and levels where edges number `first` and `last` are the kinks.

    h' is linear between, so n intervals there are best of equal length: border i is 6 i / n - 3,
    and level i, its mean h' at the middle, (2 i + 1) / n - 1/2. Each is rounded once.
    """
    n = last - first
    edges, i = edges.copy(), np.arange(n + 1)
    edges[first : last + 1] = (6 * i - 3 * n) / n
    means = _means(edges)
    means[first:last] = (2 * i[:-1] + 1 - n / 2) / n
    return edges, means


def _h(x: Array) -> Array:
    return np.asarray(x * np.clip(x + 3, 0, 6) / 6)


def _means(edges: Array) -> Array:
    return np.asarray(np.diff(_h(edges)) / np.diff(edges))


def _integral_of_squares(x: Array) -> Array:
    """Of h'(t)^2 up to x, but for a constant: ((2t + 3) / 6)^2 between the kinks, 1 above."""
    inner = np.clip(x, -3, 3)
    return np.asarray((2 * inner + 3) ** 3 / 216 + np.maximum(x - 3, 0))


def _errors(points: Array) -> Array:
    """Squared error of one level on [points[i], points[j]], infinite unless i < j."""
    length, rise, squares = (of - of[:, None] for of in (points, _h(points), _integral_of_squares(points)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 0, squares - rise**2 / length, np.inf)


def _best_path(errors: Array, intervals: int) -> Array:
    """Indices of the points that part the grid into that many intervals at the least total error."""
    best = errors[0]
    choices = []
    for _ in range(intervals - 1):
        totals = best[:, None] + errors
        choices.append(np.argmin(totals, axis=0))
        best = np.min(totals, axis=0)
    path = [len(errors) - 1]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return np.array([0, *reversed(path)])
