"""Sums over the positions of a map per channel, in float64; and what a batch norm and a gate do per channel.

The sums of a batch are those of its groups (see `groups`), in order; those of a sample go over its positions.
NumPy's lines define the results; the kernels give the same bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minitl.arrays import Array, Shape, positions
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, by_groups
from minitl.kernels.pointwise import Span, masked, spans
from minitl.kernels.sums import in_order
from minitl.kernels.tasks import Place, Recorder, Table

compiled, maps = Lazily("minitl.kernels.compiled.channels"), Lazily("minitl.kernels.compiled.maps")


def sums(x: Array) -> Array:
    """The sum of x (..., C) per channel, float64 (C,)."""
    partial = np.empty((len(Groups(x.shape)), x.shape[-1]))
    if interpreted():
        for total, rows in zip(partial, by_groups(x), strict=True):
            total[:] = in_order(rows.astype(np.float64))
    else:
        sums_table(x.shape, x.dtype.name).run(x, partial)
    return in_order(partial)


def sums_workspace(shape: Shape) -> int:
    """Bytes that `sums` of a map of that shape takes: the groups' and their total."""
    return 8 * shape[-1] * (len(Groups(shape)) + 2)


def dots(x: Array, z: Array) -> Array:
    """The sum of x z (..., C) per channel, float64 (C,), the products made in float64."""
    partial = np.empty((len(Groups(x.shape)), x.shape[-1]))
    if interpreted():
        for total, rows, others in zip(partial, by_groups(x), by_groups(z), strict=True):
            total[:] = in_order(rows.astype(np.float64) * others)
    else:
        dots_table(x.shape, x.dtype.name).run(x, z, partial)
    return in_order(partial)


def sample_means(x: Array, means: Array) -> None:
    """means (N, C) of x (N, H, W, C) over its positions: a float64 sum, divided, and rounded."""
    totals = np.empty(means.shape)
    if interpreted():
        for total, image in zip(totals, x, strict=True):
            total[:] = in_order(image.reshape(-1, x.shape[3]).astype(np.float64))
    else:
        sample_sums_table(x.shape, x.dtype.name).run(x, totals)
    means[:] = totals / (x.shape[1] * x.shape[2])


def sample_dots(x: Array, z: Array, out: Array) -> None:
    """out (N, C): the sum of x z over the positions of each sample, in float64, rounded."""
    totals = np.empty(out.shape)
    if interpreted():
        for total, a, b in zip(totals, x, z, strict=True):
            total[:] = in_order((a.astype(np.float64) * b).reshape(-1, x.shape[3]))
    else:
        sample_dots_table(x.shape, x.dtype.name).run(x, z, totals)
    out[:] = totals


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


@lru_cache(maxsize=1024)
def sums_table(x: Shape, dtype: str) -> Table:
    """x, sums of groups."""
    record = Recorder()
    for number, span in enumerate(Groups(x)):
        record.task()
        sums_call(record, span, x[-1], dtype, Place(2), Place(3, number * x[-1] * 8))
    return record.table()


@lru_cache(maxsize=1024)
def dots_table(x: Shape, dtype: str) -> Table:
    """x, z, sums of groups."""
    record = Recorder()
    for number, span in enumerate(Groups(x)):
        record.task()
        dots_call(record, span, x[-1], dtype, Place(2), Place(3), Place(4, number * x[-1] * 8))
    return record.table()


@lru_cache(maxsize=1024)
def sample_sums_table(x: Shape, dtype: str) -> Table:
    """x, sums of samples."""
    record, area = Recorder(), positions(x[1:])
    for n in range(x[0]):
        record.task()
        sums_call(record, (n * area, (n + 1) * area), x[-1], dtype, Place(2), Place(3, n * x[-1] * 8))
    return record.table()


@lru_cache(maxsize=1024)
def sample_dots_table(x: Shape, dtype: str) -> Table:
    """x, z, sums of samples."""
    record, area = Recorder(), positions(x[1:])
    for n in range(x[0]):
        record.task()
        span = n * area, (n + 1) * area
        dots_call(record, span, x[-1], dtype, Place(2), Place(3), Place(4, n * x[-1] * 8))
    return record.table()


@lru_cache(maxsize=1024)
def moments_table(x: Shape, dtype: str) -> Table:
    """x, means of groups, their squares."""
    record = Recorder()
    for number, span in enumerate(Groups(x)):
        record.task()
        offset = number * x[-1] * 8
        moments_call(record, span, x[-1], dtype, Place(2), Place(3, offset), Place(4, offset))
    return record.table()


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


@lru_cache(maxsize=1024)
def combine_table(x: Shape, dtype: str) -> Table:
    """gy, x_hat, out, a, b, shift."""
    record = Recorder()
    for span in spans(positions(x), 1):
        record.task()
        combine_call(record, span, x[-1], dtype, tuple(Place(i) for i in range(2, 8)))
    return record.table()
