"""The three products of a linear or pointwise layer, x (M, I) and W (O, I):

    y = x W^T + b    a chain over i, from b or +0
    gx = gy W        a chain over o
    gW = gy^T x      a chain over the positions of each group, groups in float64 (see `groups`)

The plain loops below define them; the kernels give the same bits, from register tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, Shape, as_rows, itemsize, positions
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, by_groups
from minitl.kernels.loops import fma
from minitl.kernels.sums import join_chains
from minitl.kernels.target import lanes, masked, target
from minitl.kernels.tasks import TASKS, Place, Places, Recorder, Span, aligned, given, scratch_bytes, spans, table_of

compiled, sums = Lazily("minitl.kernels.compiled.pointwise"), Lazily("minitl.kernels.compiled.sums")

FEW = 16  # positions for which a weight is not made ready first
ROOM = 24576  # elements of a weight's gradient that one task adds up


class End(NamedTuple):
    """What a convolution's map goes through before it is stored: a frozen norm and an activation, if one is named."""

    name: str = ""
    scale: Place | int = 0
    shift: Place | int = 0


NO_END = End()


def loop_forward(x: Array, matrix: Array, y: Array) -> None:
    """y (M, N) += x (M, K) matrix (K, N), k ascending."""
    for k in range(len(matrix)):
        y[:] = fma(x[:, k, None], matrix[k], y)


def loop_grad_weight(x: Array, gy: Array, gw: Array) -> None:
    """gw (O, I) = gy^T x, a chain for each group."""
    chains = []
    for slopes, values in zip(by_groups(gy), by_groups(x), strict=True):
        chain = np.zeros_like(gw)
        for m in range(len(values)):
            chain = fma(slopes[m, :, None], values[m], chain)
        chains.append(chain)
    join_chains(np.array(chains), np.empty(gw.size), gw, turned=False)


def forward(x: Array, weight: Array, bias: Array | None, y: Array) -> None:
    """y (..., O) = x (..., I) W^T + b."""
    _multiply(x, weight, bias, y, transposed=True)


def grad_input(gy: Array, weight: Array, gx: Array) -> None:
    """gx (..., I) = gy (..., O) W."""
    _multiply(gy, weight, None, gx, transposed=False)


def grad_weight(x: Array, gy: Array, gw: Array) -> None:
    """gw (O, I) = gy^T x."""
    if interpreted():
        loop_grad_weight(x, gy, gw)
    else:
        grad_weight_table(x.shape, gy.shape, gy.dtype.name).run(x, gy, gw)


def _multiply(x: Array, weight: Array, bias: Array | None, y: Array, *, transposed: bool) -> None:
    dtype, few = x.dtype.name, positions(x.shape) <= FEW
    if interpreted():
        as_rows(y)[:] = 0 if bias is None else bias
        loop_forward(as_rows(x), weight.T if transposed else weight, as_rows(y))
    elif few and transposed:
        columns = np.ascontiguousarray(as_rows(x).T)
        chains = np.empty((len(weight), columns.shape[1]), x.dtype)
        chains[:] = 0 if bias is None else bias[:, None]
        few_table(weight.shape, columns.shape[1], dtype).run(weight, columns, chains)
        as_rows(y)[:] = chains.T
    elif few:
        plain_table(positions(x.shape), weight.shape, dtype).run(x, weight, y)
    else:
        packed = np.empty(packed_size(weight.shape, dtype, transposed), x.dtype)
        pack_table(weight.shape, dtype, transposed).run(weight, packed)
        product_table(x.shape, y.shape, dtype, bias is not None).run(x, packed, y, *([] if bias is None else [bias]))


def product_workspace(count: int, weight: Shape, dtype: str, transposed: bool) -> int:
    """Bytes that `forward` (`transposed`) or `grad_input` of `count` positions takes."""
    itself = itemsize(dtype)
    if count <= FEW:
        return sum(weight) * count * itself if transposed else 0  # x^T and y^T
    return packed_size(weight, dtype, transposed) * itself


# A few positions: the weight is read once, as it is.


@table_of
def few_table(record: Recorder, weight: Shape, count: int, dtype: str) -> None:
    """weight (O, I), x^T (I, count), and y^T (O, count), which goes on from what is there."""
    for rows in spans(weight[0], target().outer_rows):
        record.task()
        few_calls(record, weight[1], count, dtype, rows, given(3))


def few_calls(record: Recorder, inputs: int, count: int, dtype: str, rows: Span, places: Places) -> None:
    """Record that rows of y^T (O, count) go on with W x^T; places are of the weight, x^T and y^T."""
    weight, x, y = places
    for first, last, vecs, how in tile_runs((0, count), dtype):
        chain, span = y + (rows[0] * count + first) * itemsize(dtype), (0, inputs)
        kernel = compiled.outer(dtype, vecs, how)
        record.call(kernel, weight, 1, inputs, *rows, x, count, first, last, *span, chain, count, False)


@table_of
def plain_table(record: Recorder, count: int, weight: Shape, dtype: str) -> None:
    """gy (count, O), weight (O, I), gx: tasks are some columns."""
    for first, last, vecs, uneven in panel_runs(weight[1], dtype):
        for j0, j1 in spans(last - first, vecs * lanes(dtype)):
            record.task()
            plain_call(record, count, weight, dtype, (first + j0, first + j1, vecs, uneven), given(3))


def plain_call(
    record: Recorder, count: int, weight: Shape, dtype: str, columns: tuple[int, int, int, bool], places: Places
) -> None:
    """Record gx = gy W for some columns of W (O, I), which is read as it is; places are of gy, the weight and gx."""
    (outputs, inputs), (first, last, vecs, uneven), (gy, matrix, gx) = weight, columns, places
    panel, wide = (matrix + first * itemsize(dtype), inputs), vecs * lanes(dtype)
    kernel = compiled.product(dtype, vecs, int(uneven))
    record.call(kernel, gy, outputs, *panel, wide, gx, inputs, first, last, 0, count)


# Panels: a matrix (K, N) in columns of a tile's width, so that a tile reads it in one stream.


def panels(columns: int, dtype: str) -> Iterator[tuple[int, int, int]]:
    """First and last column, and numbers in a row, of each panel of that many columns: whole vectors."""
    most = target().vecs * lanes(dtype)
    for first in range(0, columns, most):
        last = min(first + most, columns)
        yield first, last, aligned(last - first, lanes(dtype))


def packed_size(weight: Shape, dtype: str, transposed: bool) -> int:
    """Numbers in the panels of W^T, or of W."""
    inner, columns = weight[::-1] if transposed else weight
    return inner * aligned(columns, lanes(dtype))


def pack_calls(
    record: Recorder, weight: Shape, dtype: str, transposed: bool, source: Place, out: Place, gate: Place | None = None
) -> None:
    """Record the packing of W^T (or of W), perhaps of W gate, in one task."""
    itself, (outputs, inputs) = itemsize(dtype), weight
    inner, columns = (inputs, outputs) if transposed else (outputs, inputs)
    kernel = compiled.pack_panel(dtype, gate is not None, transposed)
    for j, stop, width in panels(columns, dtype):
        matrix, panel = source + (j * inputs if transposed else j) * itself, out + j * inner * itself
        factors = () if gate is None else (gate,) if transposed else (gate + j * itself,)
        record.call(kernel, matrix, inputs, inner, stop - j, width, panel, *factors)


@table_of
def pack_table(record: Recorder, weight: Shape, dtype: str, transposed: bool) -> None:
    """weight, panels."""
    record.task()
    pack_calls(record, weight, dtype, transposed, Place(2), Place(3))


def product_calls(
    record: Recorder, span: Span, inner: int, columns: int, dtype: str, places: Places, bias: Place | None = None,
    end: End = NO_END, step: int = 0,
) -> None:  # fmt: skip
    """Record y = x B + b for the positions of `span`, and what y `end`s with; places are of x, the panels and y.

    `step` is the distance of two rows of y where it has other columns besides.
    """
    itself, (x, matrix, y) = itemsize(dtype), places
    for j, stop, wide, _ in panel_runs(columns, dtype):
        width = wide * lanes(dtype)
        for first, last, vecs, how in tile_runs((j, stop), dtype):
            panel = matrix + (j * inner + first - j) * itself
            record.call(
                compiled.product(dtype, vecs, how, end.name), x, inner, panel, width, inner * width, y, step or columns,
                first, last, *span, bias or 0, end.scale, end.shift,
            )  # fmt: skip


def panel_runs(columns: int, dtype: str, most: int = 0) -> Iterator[tuple[int, int, int, bool]]:
    """First and last column, vectors, and whether the last is not whole, of the full panels and of the rest.

    A full panel has `most` vectors, by default as many as the tile of a product.
    """
    wide, most = lanes(dtype), most or target().vecs
    full = columns // (most * wide) * most * wide
    if full:
        yield 0, full, most, False
    if full < columns:
        yield full, columns, -(-(columns - full) // wide), masked(columns, dtype)


def tile_runs(columns: Span, dtype: str) -> Iterator[tuple[int, int, int, int]]:
    """Those runs as tiles: first and last column, vectors, and how wide (see `compiled.tile.wide`).

    A vector of 64 bytes of which at most half is left goes alone, and is a half one: some processors take half as long.
    """
    full = lanes(dtype)
    for first, last, vecs, uneven in panel_runs(columns[1] - columns[0], dtype):
        start, stop, left = columns[0] + first, columns[0] + last, (last - first) % full
        if target().vector_bytes == 64 and 0 < left <= full // 2:
            if vecs > 1:
                yield start, stop - left, vecs - 1, 0
            yield stop - left, stop, 1, 2 + (left < full // 2)
        else:
            yield start, stop, vecs, int(uneven)


@table_of
def product_table(record: Recorder, x: Shape, y: Shape, dtype: str, biased: bool) -> None:
    """x, panels, y and perhaps a bias."""
    for span in spans(positions(x), target().rows):
        record.task()
        product_calls(record, span, x[-1], y[-1], dtype, given(3), Place(5) if biased else None)


class Sides(NamedTuple):
    """Which map of a weight's gradient gives the rows of its tiles, and which, with more channels, the vectors."""

    rows: int
    columns: int
    steps: tuple[int, int]  # between rows, and between columns, in gw (O, I)
    swapped: bool  # whether the rows are inputs

    def order(self, x: Place, gy: Place) -> tuple[Place, Place]:
        """The map of the rows, and that of the columns."""
        return (x, gy) if self.swapped else (gy, x)


def sides(inputs: int, outputs: int, *, alone: bool = False) -> Sides:
    """Vectors lie along the longer side; along the inputs, as in gw, where a chain, `alone`, goes straight there."""
    if outputs > inputs and not alone:
        return Sides(inputs, outputs, (1, inputs), True)
    return Sides(outputs, inputs, (inputs, 1), False)


def outer_calls(
    record: Recorder, at: Sides, dtype: str, maps: Places, rows: Span, columns: Span, span: Span, chain: Place,
    width: int, begins: bool,
) -> None:  # fmt: skip
    """Record the chains of a piece of gw over the positions of `span`; `maps` as in `Sides.order`.

    Rows of the piece are `width` apart in `chain`.
    """
    for first, last, vecs, how in tile_runs(columns, dtype):
        kernel, to = compiled.outer(dtype, vecs, how), chain + (first - columns[0]) * itemsize(dtype)
        record.call(kernel, maps[0], at.rows, 1, *rows, maps[1], at.columns, first, last, *span, to, width, begins)


def grad_weight_calls(record: Recorder, x: Shape, gy: Shape, dtype: str, places: Places) -> None:
    """Record gw = gy^T x, a task for each piece of gw; places are of x, gy and gw.

    A task adds up the chains of its piece, group by group, in scratch memory; or, of a single group, in gw itself.
    """
    groups = Groups(x)
    at = sides(x[-1], gy[-1], alone=len(groups) == 1)
    for rows, columns in _pieces(at, dtype):
        record.task()
        piece_calls(record, groups, at, dtype, rows, columns, places)


def piece_calls(
    record: Recorder, groups: Groups, at: Sides, dtype: str, rows: Span, columns: Span, places: Places
) -> None:
    """Record these rows and columns of gw."""
    (x, gy, gw), shape = places, (rows[1] - rows[0], columns[1] - columns[0])
    maps, out = at.order(x, gy), gw + (rows[0] * at.steps[0] + columns[0] * at.steps[1]) * itemsize(dtype)
    if len(groups) == 1:
        outer_calls(record, at, dtype, maps, rows, columns, groups[0], out, at.steps[0], True)
        return
    count = shape[0] * shape[1]
    chain, total = chain_and_total(record, count, dtype)
    for number, span in enumerate(groups):
        outer_calls(record, at, dtype, maps, rows, columns, span, chain, shape[1], True)
        record.call(sums.join_groups(dtype), chain, total, count, number == 0)
    record.call(sums.round_sum(dtype, at.steps[1] == 1), total, *shape, out, *at.steps)


def chain_and_total(record: Recorder, count: int, dtype: str) -> Places:
    """Scratch memory for a chain of so many numbers, and for their sum in float64."""
    chain = count * itemsize(dtype)
    return record.scratch(chain), record.scratch(8 * count, aligned(chain))


def _pieces(at: Sides, dtype: str) -> list[tuple[Span, Span]]:
    """Rows and columns of each piece of a gradient: a panel wide, and as high as scratch memory allows."""
    wide = list(panels(at.columns, dtype))
    high = min(ROOM // (target().vecs * lanes(dtype)), max(target().outer_rows, -(-at.rows * len(wide) // TASKS)))
    high = aligned(high, target().outer_rows)
    return [((o, min(o + high, at.rows)), (j, stop)) for j, stop, _ in wide for o in range(0, at.rows, high)]


def grad_weight_scratch(x: Shape, outputs: int, dtype: str) -> tuple[int, int]:
    """Bytes of scratch memory per thread that the weight's gradient takes, and how many tasks it has."""
    if len(Groups(x)) == 1:
        return 0, 1
    pieces = _pieces(sides(x[-1], outputs), dtype)
    (_, rows), (_, columns) = pieces[0]  # the largest
    return aligned(rows * columns * itemsize(dtype)) + 8 * rows * columns, len(pieces)


def grad_weight_workspace(x: Shape, outputs: int, dtype: str) -> int:
    """Bytes of it for the threads in force."""
    return scratch_bytes(*grad_weight_scratch(x, outputs, dtype))


def layer_calls(record: Recorder, count: int, weight: Shape, dtype: str, places: Places, bias: Place) -> None:
    """Record y = x W^T + b of `count` positions, all in the current task; places are of x, the weight and y."""
    (outputs, inputs), itself, (x, matrix, y) = weight, itemsize(dtype), places
    if count > FEW:
        packed = record.scratch(packed_size(weight, dtype, True) * itself)
        pack_calls(record, weight, dtype, True, matrix, packed)
        product_calls(record, (0, count), inputs, outputs, dtype, (x, packed, y), bias)
        return
    turn, columns = compiled.pack_panel(dtype, False, True), record.scratch(inputs * count * itself)
    chains = record.scratch(outputs * count * itself, inputs * count * itself)
    record.call(turn, x, inputs, inputs, count, count, columns)
    record.call(turn, bias, 0, outputs, count, count, chains)  # the same row for each position
    few_calls(record, inputs, count, dtype, (0, outputs), (matrix, columns, chains))
    record.call(turn, chains, count, count, outputs, outputs, y)


def layer_back_calls(record: Recorder, count: int, weight: Shape, dtype: str, places: Places) -> None:
    """Record gx = gy W of `count` positions, all in the current task; places are of gy, the weight and gx."""
    (outputs, inputs), (gy, matrix, gx) = weight, places
    if count > FEW:
        packed = record.scratch(packed_size(weight, dtype, False) * itemsize(dtype))
        pack_calls(record, weight, dtype, False, matrix, packed)
        product_calls(record, (0, count), outputs, inputs, dtype, (gy, packed, gx))
        return
    for columns in panel_runs(inputs, dtype):
        plain_call(record, count, weight, dtype, columns, places)


@table_of
def grad_weight_table(record: Recorder, x: Shape, gy: Shape, dtype: str) -> None:
    """x, gy, gw."""
    grad_weight_calls(record, x, gy, dtype, given(3))
