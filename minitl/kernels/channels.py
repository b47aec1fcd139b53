"""Sums over the positions of a map per channel, in float64; and what a batch norm and a gate do per channel.

The sums of a batch are those of its groups (see `groups`), in order; those of a sample go over its positions.
NumPy's lines define the results; the kernels give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from minitl.arrays import Array, Shape, positions
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, by_groups
from minitl.kernels.pointwise import Span, masked, spans
from minitl.kernels.sums import in_order
from minitl.kernels.tasks import Place, Recorder, table_of

compiled, maps = Lazily("minitl.kernels.compiled.channels"), Lazily("minitl.kernels.compiled.maps")


def sums(x: Array) -> Array:
    """The sum of x (..., C) per channel, float64 (C,)."""
    return in_order(_sums(x))


def sums_workspace(shape: Shape) -> int:
    """Bytes that `sums` of a map of that shape takes: the groups' and their total."""
    return 8 * shape[-1] * (len(Groups(shape)) + 2)


def dots(x: Array, z: Array) -> Array:
    """The sum of x z (..., C) per channel, float64 (C,), the products made in float64."""
    return in_order(_sums(x, z))


def sample_means(x: Array, means: Array) -> None:
    """means (N, C) of x (N, H, W, C) over its positions: a float64 sum, divided, and rounded."""
    means[:] = _sums(x, samples=True) / (x.shape[1] * x.shape[2])


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
    """Mean and sum of centred squares of x (..., C) per channel, float64: those of the groups, joined."""
    count = len(Groups(x.shape))
    means, squares = np.empty((count, x.shape[-1])), np.empty((count, x.shape[-1]))
    if interpreted():
        for mean, square, rows in zip(means, squares, by_groups(x), strict=True):
            mean[:] = in_order(rows.astype(np.float64)) / len(rows)
            square[:] = in_order((rows - mean) ** 2)
    else:
        moments_table(x.shape, x.dtype.name).run(x, means, squares)
    return join_moments([last - first for first, last in Groups(x.shape)], means, squares)


def join_moments(counts: list[int], means: Array, squares: Array) -> tuple[Array, Array]:
    """The moments of all groups from those of each, in order (Chan, Golub & LeVeque 1983, DOI 10.2307/2683386)."""
    n, mean, square = counts[0], means[0].copy(), squares[0].copy()
    for more, its_mean, its_square in zip(counts[1:], means[1:], squares[1:], strict=True):
        step = its_mean - mean
        mean += step * (more / (n + more))
        square += its_square + step * step * (n * more / (n + more))
        n += more
    return mean, square


def combine(gy: Array, x_hat: Array, out: Array, a: Array, b: Array, shift: Array) -> None:
    """out = (a gy + b x_hat) + shift; out may be either map."""
    if interpreted():
        out[:] = (a * gy + b * x_hat) + shift
    else:
        combine_table(gy.shape, gy.dtype.name).run(gy, x_hat, out, a, b, shift)


@table_of
def sums_table(record: Recorder, x: Shape, dtype: str, dotted: bool, samples: bool) -> None:
    """x, perhaps z, and the sums of groups, or of samples."""
    area = positions(x[1:])
    for number, span in enumerate(((n * area, (n + 1) * area) for n in range(x[0])) if samples else Groups(x)):
        total = Place(3 + dotted, number * x[-1] * 8)
        record.task()
        if dotted:
            dots_call(record, span, x[-1], dtype, Place(2), Place(3), total)
        else:
            sums_call(record, span, x[-1], dtype, Place(2), total)


@table_of
def moments_table(record: Recorder, x: Shape, dtype: str) -> None:
    """x, means of groups, their squares."""
    for number, span in enumerate(Groups(x)):
        record.task()
        offset = number * x[-1] * 8
        moments_call(record, span, x[-1], dtype, Place(2), Place(3, offset), Place(4, offset))


def sums_call(record: Recorder, span: Span, channels: int, dtype: str, x: Place, total: Place) -> None:
    """Record the sums (float64) of positions `span` of x."""
    record.call(compiled.sums(dtype, masked(channels, dtype)), x, *span, channels, total)


def dots_call(record: Recorder, span: Span, channels: int, dtype: str, x: Place, z: Place, total: Place) -> None:
    """Record the sums (float64) of x z over positions `span`."""
    record.call(compiled.dots(dtype, masked(channels, dtype)), x, z, *span, channels, total)


def moments_call(
    record: Recorder, span: Span, channels: int, dtype: str, x: Place, mean: Place, squares: Place
) -> None:
    """Record mean and sum of centred squares (float64) of positions `span`, a group, of x."""
    record.call(compiled.moments(dtype, masked(channels, dtype)), x, *span, channels, mean, squares)


def combine_call(record: Recorder, span: Span, channels: int, dtype: str, places: tuple[Place, ...]) -> None:
    """Record that of positions `span`; places are of gy, x_hat, out, a, b and the shift."""
    kernel = maps.combine(dtype, masked(channels, dtype))
    record.call(kernel, *places[:3], *span, channels, *places[3:])


def gate_call(record: Recorder, span: Span, channels: int, dtype: str, places: tuple[Place | int, ...]) -> None:
    """Record out = x factor + more of positions `span`; places are of x, out, factor, more (0: none)."""
    x, out, factor, more = places
    kernel = maps.gate(dtype, factor != 0, more != 0, masked(channels, dtype))
    record.call(kernel, x, out, *span, channels, factor, more)


@table_of
def combine_table(record: Recorder, x: Shape, dtype: str) -> None:
    """gy, x_hat, out, a, b, shift."""
    for span in spans(positions(x), 1):
        record.task()
        combine_call(record, span, x[-1], dtype, tuple(Place(i) for i in range(2, 8)))
