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
from minitl.kernels.pointwise import NO_END, End, lanes, packed_size, panel_runs, panel_widths, spans
from minitl.kernels.sums import add_groups, join_groups
from minitl.kernels.target import target
from minitl.kernels.tasks import Place, Recorder, sample, table_of
from minitl.kernels.window import Window

compiled, products = Lazily("minitl.kernels.compiled.dense"), Lazily("minitl.kernels.compiled.pointwise")


def loop_forward(x: Array, weight: Array, at: Window, y: Array) -> None:
    """y += x convolved with the weight."""
    for u, v, c in np.ndindex(at.k, at.k, x.shape[3]):
        (i, h), (j, w) = at.rows(u), at.columns(v)
        y[:, i, j] = fma(x[:, h, w, c, None], weight[:, c, u, v], y[:, i, j])


def loop_grad_input(gy: Array, weight: Array, at: Window, gx: Array) -> None:
    """gx: later taps reach a pixel from earlier outputs."""
    gx[:] = 0
    for u in reversed(range(at.k)):
        for v in reversed(range(at.k)):
            (i, h), (j, w) = at.rows(u), at.columns(v)
            for o in range(gy.shape[3]):
                gx[:, h, w] = fma(gy[:, i, j, o, None], weight[o, :, u, v], gx[:, h, w])


def loop_grad_weight(x: Array, gy: Array, at: Window, gw: Array) -> None:
    """gw (O, C, k, k): a chain for each group of samples."""
    size = group_size(gy.shape)
    for u, v in np.ndindex(at.k, at.k):
        (i, h), (j, w) = at.rows(u), at.columns(v)
        chains = []
        for n in range(0, len(gy), size):
            chain = np.zeros((gy.shape[3], x.shape[3]), x.dtype)
            slopes, pixels = gy[n : n + size, i, j], x[n : n + size, h, w]
            for at_slope, at_pixel in zip(slopes.reshape(-1, gy.shape[3]), pixels.reshape(-1, x.shape[3]), strict=True):
                chain = fma(at_slope[:, None], at_pixel, chain)
            chains.append(chain)
        gw[:, :, u, v] = add_groups(chains)


def forward(x: Array, weight: Array, bias: Array | None, at: Window, y: Array) -> None:
    """y = x convolved with the weight, plus the bias."""
    if interpreted():
        y[:] = 0 if bias is None else bias
        loop_forward(x, weight, at, y)
        return
    panels = np.empty(panels_size(weight.shape, x.dtype.name), x.dtype)
    pack_table(weight.shape, x.dtype.name).run(weight, panels)
    forward_table(x.shape, y.shape, at, x.dtype.name, bias is not None).run(
        x, panels, y, *([] if bias is None else [bias])
    )


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
        its = chains[first // many :]
        grad_weight_table(part.shape, slopes.shape, at, gy.dtype.name).run(part, slopes, its)
        del part
    join_chains(chains, np.empty(chains.shape[1:]), gw)


def chain_shape(weight: Shape) -> Shape:
    """The shape of one group's gradient of such a weight, as it is added up: (k, k, C, O)."""
    return *weight[2:], weight[1], weight[0]


def join_chains(chains: Array, total: Array, gw: Array) -> None:
    """gw (O, C, k, k) = the sum of the groups' chains (k, k, C, O); `total` is room for it in float64."""
    join_groups(chains, total)
    gw[:] = total.transpose(3, 2, 0, 1)


def panels_size(weight: Shape, dtype: str) -> int:
    """Numbers in the panels of such a weight."""
    return packed_size((weight[0], int(np.prod(weight[1:]))), dtype, True)


def pack_calls(record: Recorder, weight: Shape, dtype: str, source: Place, panels: Place) -> None:
    """Record the packing of a weight (O, C, k, k) as the matrix (k k C, O) that a position's patch is multiplied with.

    In panels as those of a pointwise product (see `pointwise.panel_widths`), row by row.
    """
    (outputs, inputs, k, _), itself = weight, itemsize(dtype)
    for j, vecs in panel_widths(outputs, dtype):
        width = vecs * lanes(dtype)
        for row, (u, v, c) in enumerate(np.ndindex(k, k, inputs)):
            record.call(
                products.pack_panel(dtype, False, True), source + ((j * inputs + c) * k * k + u * k + v) * itself,
                inputs * k * k, 1, min(width, outputs - j), width,
                panels + (j * inputs * k * k + row * width) * itself,
            )  # fmt: skip


@table_of
def pack_table(record: Recorder, weight: Shape, dtype: str) -> None:
    """weight, panels."""
    record.task()
    pack_calls(record, weight, dtype, Place(2), Place(3))


def forward_calls(
    record: Recorder, x: Shape, y: Shape, at: Window, dtype: str, rows: tuple[int, int],
    places: tuple[Place, Place, Place], bias: Place | None, end: End = NO_END,
) -> None:  # fmt: skip
    """Record output rows `rows` of one sample, and what they `end` with; places are of its x, the panels and its y."""
    for first, last, vecs, uneven in panel_runs(y[3], dtype):
        record.call(
            compiled.convolve(dtype, at.k, at.s, vecs, uneven, end.name), places[0],
            places[1] + first * at.k * at.k * x[3] * itemsize(dtype), places[2], x[3], y[3], at.height,
            at.width, at.out_width, at.top, at.before, first, last, *rows, bias or 0, end.scale,
            end.shift,
        )  # fmt: skip


@table_of
def forward_table(record: Recorder, x: Shape, y: Shape, at: Window, dtype: str, biased: bool) -> None:
    """x, panels, y and perhaps a bias."""
    for n in range(x[0]):
        for rows in spans(at.out_height, 1):
            record.task()
            places = sample(2, n, x, dtype), Place(3), sample(4, n, y, dtype)
            forward_calls(record, x, y, at, dtype, rows, places, Place(5) if biased else None)


@table_of
def grad_input_table(record: Recorder, x: Shape, y: Shape, at: Window, dtype: str) -> None:
    """gy, taps (k, k, O, C), gx."""
    for n in range(x[0]):
        record.task()
        record.call(
            compiled.convolve_back(dtype, at.k, at.s), Place(2), Place(3), Place(4), x[0], x[3], y[3], at.height,
            at.width, at.out_height, at.out_width, at.top, at.before, n, n + 1,
        )  # fmt: skip


@table_of
def grad_weight_table(record: Recorder, x: Shape, y: Shape, at: Window, dtype: str) -> None:
    """x, gy and the chains (groups, k, k, C, O): a task for each group."""
    size = group_size(y)
    for n in range(x[0]):
        if n % size == 0:
            record.task()
        chain = Place(4, n // size * nbytes((at.k, at.k, x[3], y[3]), dtype))
        places = sample(2, n, x, dtype), sample(3, n, y, dtype), chain
        grad_weight_call(record, x, y, at, dtype, (0, at.out_height), places, n % size == 0)


def grad_weight_call(
    record: Recorder, x: Shape, y: Shape, at: Window, dtype: str, rows: tuple[int, int],
    places: tuple[Place, Place, Place], begins: bool,
) -> None:  # fmt: skip
    """Record the part of output rows `rows` of one sample; places are of its x, its gy and its group's chain."""
    taps = at.k * x[3]
    high = max(r for r in range(1, target().outer_rows + 2) if taps % r == 0)
    most = min(target().vecs, max(1, target().outer_rows * target().vecs // high))
    for first, last, vecs, uneven in panel_runs(y[3], dtype, most):
        record.call(
            compiled.add_up(dtype, at.k, at.s, high, vecs, uneven), *places[:2], x[3], y[3], at.height, at.width,
            at.out_width, at.top, at.before, first, last, *rows, places[2], begins,
        )  # fmt: skip
