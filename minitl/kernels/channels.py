"""Sums over the positions of a map per channel, in float64; and formulas of what comes out of them.

The sums of a batch are those of its groups (see `groups`), in order; those of a sample go over its positions.
NumPy's lines define the results; the kernels give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minitl.arrays import Array, Shape, positions
from minitl.kernels.broadcast import Broadcast
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, by_groups
from minitl.kernels.rules import identity
from minitl.kernels.sums import in_order
from minitl.kernels.target import masked
from minitl.kernels.tasks import Place, Recorder, Span, table_of

compiled = Lazily("minitl.kernels.compiled.channels")

ONE = (0, 1)  # the one row of vectors per channel


def _plus(a: Any, b: Any) -> Any:
    return a + b


def _times(x: Any, factor: Any) -> Any:
    return x * factor


def _times_plus(x: Any, factor: Any, more: Any) -> Any:
    return x * factor + more


def _over(total: Any, count: Any) -> Any:
    return total / count


def _join(n: Any, more: Any, mean: Any, square: Any, its_mean: Any, its_square: Any) -> Any:
    """The moments of n values and `more` (Chan, Golub & LeVeque 1983, DOI 10.2307/2683386)."""
    step = its_mean - mean
    joined = its_square + step * step * (n * more / (n + more))
    return mean + step * (more / (n + more)), square + joined


# Of numbers that lie side by side, as vectors.
MOVE, ADD, DIVIDE = Broadcast(identity, "c", "c"), Broadcast(_plus, "cc", "c"), Broadcast(_over, "ci", "c")
# Of a map, with vectors per channel.
SCALE, SHIFT = Broadcast(_times, "mc", "m"), Broadcast(_plus, "mc", "m")
SCALE_SHIFT = Broadcast(_times_plus, "mcc", "m")
# Of sums and means in float64.
ADD_SUMS, ROUND = Broadcast(_plus, "dd", "d", wide=True), Broadcast(identity, "d", "c", wide=True)
MEAN, ROUND_MEAN = Broadcast(_over, "di", "d", wide=True), Broadcast(_over, "di", "c", wide=True)
JOIN = Broadcast(_join, "iidddd", "dd", wide=True)


def sums(x: Array) -> Array:
    """The sum of x (..., C) per channel, float64 (C,)."""
    return in_order(_sums(x))


def sums_workspace(shape: Shape) -> int:
    """Bytes that `sums` of a map of that shape takes: the groups' and their total."""
    return 8 * shape[-1] * (len(Groups(shape)) + 1)


def dots(x: Array, z: Array) -> Array:
    """The sum of x z (..., C) per channel, float64 (C,), the products made in float64."""
    return in_order(_sums(x, z))


def sample_means(x: Array, means: Array) -> None:
    """means (N, C) of x (N, H, W, C) over its positions: a float64 sum, divided, and rounded."""
    ROUND_MEAN.into((means,), _sums(x, samples=True), x.shape[1] * x.shape[2])


def sample_dots(x: Array, z: Array, out: Array) -> None:
    """out (N, C): the sum of x z over the positions of each sample, in float64, rounded."""
    out[:] = _sums(x, z, samples=True)


def _sums(x: Array, *z: Array, samples: bool = False) -> Array:
    """The sums of x, or of x z, over the positions of each group, or of each sample: float64 (groups or N, C)."""
    totals = np.empty((len(x) if samples else len(Groups(x.shape)), x.shape[-1]))
    if interpreted():
        for total, rows, *factors in zip(totals, *(_parts(a, samples) for a in (x, *z)), strict=True):
            total[:] = in_order(math.prod(factors, start=rows.astype(np.float64)))
    else:
        sums_table(x.shape, x.dtype.name, bool(z), samples).run(x, *z, totals)
    return totals


def _parts(x: Array, samples: bool) -> Iterable[Array]:
    return x.reshape(len(x), -1, x.shape[-1]) if samples else by_groups(x)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and sum of centred squares of x (..., C) per channel, float64: those of the groups, joined in order."""
    groups = Groups(x.shape)
    means, squares = np.empty((len(groups), x.shape[-1])), np.empty((len(groups), x.shape[-1]))
    if interpreted():
        for mean, square, rows in zip(means, squares, by_groups(x), strict=True):
            mean[:] = in_order(rows.astype(np.float64)) / len(rows)
            square[:] = in_order((rows - mean) ** 2)
    else:
        moments_table(x.shape, x.dtype.name).run(x, means, squares)
    for number, (first, last) in enumerate(groups):
        if number:
            given = means[0], squares[0], means[number], squares[number]
            JOIN.into(given[:2], first, last - first, *given)
    return means[0], squares[0]


@table_of
def sums_table(record: Recorder, x: Shape, dtype: str, dotted: bool, samples: bool) -> None:
    """x, perhaps z, and the sums of groups, or of samples."""
    area = positions(x[1:])
    for number, span in enumerate(((n * area, (n + 1) * area) for n in range(x[0])) if samples else Groups(x)):
        record.task()
        z, total = (Place(3),) if dotted else (), Place(3 + dotted, number * x[-1] * 8)
        sums_call(record, span, x[-1], dtype, Place(2), *z, total)


@table_of
def moments_table(record: Recorder, x: Shape, dtype: str) -> None:
    """x, means of groups, their squares."""
    for number, span in enumerate(Groups(x)):
        record.task()
        offset = number * x[-1] * 8
        moments_call(record, span, x[-1], dtype, Place(2), Place(3, offset), Place(4, offset))


def sums_call(record: Recorder, span: Span, channels: int, dtype: str, x: Place, *z_and_total: Place) -> None:
    """Record the sums (float64) of x, or of x z, over positions `span`."""
    *z, total = z_and_total
    kernel = compiled.totals(dtype, compiled.DOTS if z else compiled.SUMS, masked(channels, dtype))
    record.call(kernel, x, *(z or (0,)), *span, channels, total)


def means_call(record: Recorder, span: Span, channels: int, dtype: str, x: Place, totals: Place, means: Place) -> None:
    """Record the means of x over positions `span`, a float64 sum, divided, and rounded; `totals` is room for it."""
    sums_call(record, span, channels, dtype, x, totals)
    ROUND_MEAN.call(record, ONE, channels, dtype, totals, span[1] - span[0], means)


def moments_call(record: Recorder, span: Span, channels: int, dtype: str, x: Place, mean: Place, square: Place) -> None:
    """Record mean and sum of centred squares (float64) of positions `span`, a group, of x."""
    sums_call(record, span, channels, dtype, x, mean)
    MEAN.call(record, ONE, channels, dtype, mean, span[1] - span[0], mean)
    record.call(compiled.totals(dtype, compiled.SQUARES, masked(channels, dtype)), x, mean, *span, channels, square)


def join_sums(record: Recorder, count: int, channels: int, dtype: str, sums: Place) -> None:
    """Record the adding of `count` groups' sums (float64), in order, to the first."""
    for number in range(1, count):
        ADD_SUMS.call(record, ONE, channels, dtype, sums, sums + number * channels * 8, sums)


def join_moments(record: Recorder, groups: Groups, channels: int, dtype: str, means: Place, squares: Place) -> None:
    """Record the joining of the groups' moments, in order, to the first's."""
    for number, (first, last) in enumerate(groups):
        if number:
            its = (at + number * channels * 8 for at in (means, squares))
            JOIN.call(record, ONE, channels, dtype, first, last - first, means, squares, *its, means, squares)
