"""The three products of a dense k x k convolution (a stem), x (N, H, W, C) and weight (O, C, k, k):

    y   a chain over (u, v, c) for each output, from b or +0
    gx  a chain over the output positions (i, j) that a pixel reached, and their channels o, ascending
    gW  a chain over the positions of each group for each (u, v, c, o), groups in float64 (see `groups`)

Taps in the padding contribute nothing. The plain loops below define the products; the kernels give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl.arrays import Array, Shape, itemsize, nbytes
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, group_size
from minitl.kernels.loops import fma
from minitl.kernels.pointwise import NO_END, End, packed_size, panel_runs, panels
from minitl.kernels.sums import chain_shape, join_chains
from minitl.kernels.target import target
from minitl.kernels.tasks import Place, Places, Recorder, Span, given, sample, spans, table_of
from minitl.kernels.window import Window

compiled, products = Lazily("minitl.kernels.compiled.dense"), Lazily("minitl.kernels.compiled.pointwise")


def loop_forward(x: Array, weight: Array, at: Window, y: Array) -> None:
    """y += x convolved with the weight."""
    for u, v, out, pixels in at.taps():
        for c in range(x.shape[3]):
            y[out] = fma(x[..., c, None][pixels], weight[:, c, u, v], y[out])


def loop_grad_input(gy: Array, weight: Array, at: Window, gx: Array) -> None:
    """gx: later taps reach a pixel from earlier outputs."""
    gx[:] = 0
    for u, v, out, pixels in reversed(at.taps()):
        for o in range(gy.shape[3]):
            gx[pixels] = fma(gy[..., o, None][out], weight[o, :, u, v], gx[pixels])


def loop_grad_weight(x: Array, gy: Array, at: Window, gw: Array) -> None:
    """gw (O, C, k, k): a chain for each group of samples."""
    size = group_size(gy.shape)
    for u, v, out, pixels in at.taps():
        chains = []
        for n in range(0, len(gy), size):
            chain, slopes, values = np.zeros(gw.shape[:2], x.dtype), gy[n : n + size][out], x[n : n + size][pixels]
            for slope, value in zip(slopes.reshape(-1, len(gw)), values.reshape(-1, x.shape[3]), strict=True):
                chain = fma(slope[:, None], value, chain)
            chains.append(chain)
        join_chains(np.array(chains), np.empty(chains[0].size), gw[:, :, u, v], turned=False)


def forward(x: Array, weight: Array, bias: Array | None, at: Window, y: Array) -> None:
    """y = x convolved with the weight, plus the bias."""
    if interpreted():
        y[:] = 0 if bias is None else bias
        loop_forward(x, weight, at, y)
        return
    dtype, biases = x.dtype.name, [] if bias is None else [bias]
    packed = np.empty(panels_size(weight.shape, dtype), dtype)
    pack_table(weight.shape, dtype).run(weight, packed)
    forward_table(x.shape, y.shape, at, dtype, bool(biases)).run(x, packed, y, *biases)


def grad_input(gy: Array, weight: Array, at: Window, gx: Array) -> None:
    """gx of that convolution."""
    if interpreted():
        loop_grad_input(gy, weight, at, gx)
    else:
        taps = np.ascontiguousarray(weight.transpose(2, 3, 0, 1))  # (O, C, k, k) -> (k, k, O, C)
        grad_input_table(gx.shape, gy.shape, at, gy.dtype.name).run(gy, taps, gx)


def grad_weight(x: Array, gy: Array, at: Window, gw: Array, numbers: Callable[[Array], Array] | None = None) -> None:
    """gw of that convolution; with `numbers`, of `numbers(x)`, which are made for a group of samples at a time."""
    if interpreted():
        loop_grad_weight(numbers(x) if numbers else x, gy, at, gw)
        return
    chains = np.empty((len(Groups(gy.shape)), *chain_shape(gw.shape)), gy.dtype)
    many = group_size(gy.shape) if numbers else len(gy)
    for first in range(0, len(gy), many):
        part, slopes = x[first : first + many], gy[first : first + many]
        part = numbers(part) if numbers else part
        grad_weight_table(part.shape, slopes.shape, at, gy.dtype.name).run(part, slopes, chains[first // many :])
        del part
    join_chains(chains, np.empty(gw.size), gw)


def panels_size(weight: Shape, dtype: str) -> int:
    """Numbers in the panels of such a weight."""
    return packed_size((weight[0], int(np.prod(weight[1:]))), dtype, True)


def pack_calls(record: Recorder, weight: Shape, dtype: str, source: Place, out: Place) -> None:
    """Record the packing of a weight (O, C, k, k) as the matrix (k k C, O) that a position's patch is multiplied with.

    In panels as those of a pointwise product, row by row.
    """
    (outputs, inputs, k, _), itself, kernel = weight, itemsize(dtype), products.pack_panel(dtype, False, True)
    filter_size = inputs * k * k
    for j, stop, width in panels(outputs, dtype):
        for row, (u, v, c) in enumerate(np.ndindex(k, k, inputs)):
            numbers = source + (j * filter_size + (c * k + u) * k + v) * itself
            to = out + (j * filter_size + row * width) * itself
            record.call(kernel, numbers, filter_size, 1, stop - j, width, to)


@table_of
def pack_table(record: Recorder, weight: Shape, dtype: str) -> None:
    """weight, panels."""
    record.task()
    pack_calls(record, weight, dtype, Place(2), Place(3))


def forward_calls(
    record: Recorder, at: Window, channels: tuple[int, int], dtype: str, rows: Span, places: Places,
    bias: Place | None = None, end: End = NO_END,
) -> None:  # fmt: skip
    """Record output rows `rows` of one sample, and what they `end` with; places are of its x, the panels and its y.

    `channels` are those of x and of y.
    """
    x, packed, y = places
    for first, last, vecs, uneven in panel_runs(channels[1], dtype):
        kernel = compiled.convolve(dtype, at.k, at.s, vecs, uneven, end.name)
        panel = packed + first * at.k * at.k * channels[0] * itemsize(dtype)
        record.call(kernel, x, panel, y, *channels, *at[2:], first, last, *rows, bias or 0, end.scale, end.shift)


@table_of
def forward_table(record: Recorder, x: Shape, y: Shape, at: Window, dtype: str, biased: bool) -> None:
    """x, panels, y and perhaps a bias."""
    for n in range(x[0]):
        for rows in spans(at.out_height, 1):
            record.task()
            places = sample(Place(2), n, x, dtype), Place(3), sample(Place(4), n, y, dtype)
            forward_calls(record, at, (x[3], y[3]), dtype, rows, places, Place(5) if biased else None)


@table_of
def grad_input_table(record: Recorder, x: Shape, y: Shape, at: Window, dtype: str) -> None:
    """gy, taps (k, k, O, C), gx."""
    for n in range(x[0]):
        record.task()
        record.call(compiled.convolve_back(dtype, at.k, at.s), *given(3), x[0], x[3], y[3], *at[2:], n, n + 1)


@table_of
def grad_weight_table(record: Recorder, x: Shape, y: Shape, at: Window, dtype: str) -> None:
    """x, gy and the chains (groups, k, k, C, O): a task for each group."""
    size = group_size(y)
    for n in range(x[0]):
        if n % size == 0:
            record.task()
        chain = Place(4, n // size * nbytes((at.k, at.k, x[3], y[3]), dtype))
        places = sample(Place(2), n, x, dtype), sample(Place(3), n, y, dtype), chain
        grad_weight_calls(record, at, (x[3], y[3]), dtype, (0, at.out_height), places, n % size == 0)


def grad_weight_calls(
    record: Recorder, at: Window, channels: tuple[int, int], dtype: str, rows: Span, places: Places, begins: bool
) -> None:
    """Record the part of output rows `rows` of one sample; places are of its x, its gy and its group's chain."""
    (x, gy, chain), taps = places, at.k * channels[0]
    high = max(r for r in range(1, target().outer_rows + 2) if taps % r == 0)
    most = min(target().vecs, max(1, target().outer_rows * target().vecs // high))
    for first, last, vecs, uneven in panel_runs(channels[1], dtype, most):
        kernel = compiled.add_up(dtype, at.k, at.s, high, vecs, uneven)
        record.call(kernel, x, gy, *channels, *at[2:], first, last, *rows, chain, begins)
