"""The three products of a linear or pointwise layer, x (M, I) and W (O, I):

    y = x W^T + b    a chain over i, from b or +0
    gx = gy W        a chain over o
    gW = gy^T x      a chain over the positions of each group, groups in float64 (see `groups`)

The plain loops below define them; the kernels give the same bits, from register tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from minitl.arrays import Array, Shape, as_rows
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, by_groups
from minitl.kernels.loops import fma
from minitl.kernels.sums import add_groups
from minitl.kernels.target import target
from minitl.kernels.tasks import Place, Recorder, Table, scratch_bytes

compiled, sums = Lazily("minitl.kernels.compiled.pointwise"), Lazily("minitl.kernels.compiled.sums")

BLOCK = 192  # positions that a weight's gradient takes in before the next tile
TASKS = 8  # pieces of work, for up to as many threads
ROOM = 24576  # elements of a weight's gradient that one task adds up


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
    gw[:] = add_groups(chains)


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
    if interpreted():
        as_rows(y)[:] = 0 if bias is None else bias
        loop_forward(as_rows(x), weight.T if transposed else weight, as_rows(y))
        return
    panels = np.empty(packed_size(weight.shape, x.dtype.name, transposed), x.dtype)
    pack_table(weight.shape, x.dtype.name, transposed).run(weight, panels)
    table = product_table(x.shape, y.shape, x.dtype.name, bias is not None)
    table.run(x, panels, y, *([] if bias is None else [bias]))


# Panels: a matrix (K, N) in columns of a tile's width, so that a tile reads it in one stream.


def panel_widths(columns: int, dtype: str) -> list[tuple[int, int]]:
    """(first column, vectors) of each panel of that many columns."""
    lanes, most = target().lanes(np.dtype(dtype).itemsize), target().vecs
    return [(j, min(most, -(-(columns - j) // lanes))) for j in range(0, columns, most * lanes)]


def panel_stop(first: int, vecs: int, columns: int, dtype: str) -> tuple[int, bool]:
    """The column after a panel's last, and whether its last vector is not whole."""
    stop = min(first + vecs * target().lanes(np.dtype(dtype).itemsize), columns)
    return stop, masked(stop - first, dtype)


def packed_size(weight: Shape, dtype: str, transposed: bool) -> int:
    """Numbers in the panels of W^T, or of W."""
    inner, columns = weight[::-1] if transposed else weight
    return inner * sum(vecs for _, vecs in panel_widths(columns, dtype)) * target().lanes(np.dtype(dtype).itemsize)


def pack_calls(
    record: Recorder,
    weight: Shape,
    dtype: str,
    transposed: bool,
    source: Place,
    panels: Place,
    gate: Place | None = None,
) -> None:
    """Record the packing of W^T (or of W), perhaps of W gate, in one task."""
    itemsize, (outputs, inputs) = np.dtype(dtype).itemsize, weight
    inner, columns = (inputs, outputs) if transposed else (outputs, inputs)
    steps = (1, inputs) if transposed else (inputs, 1)
    for j, vecs in panel_widths(columns, dtype):
        width = vecs * target().lanes(itemsize)
        factors = () if gate is None else (gate,) if transposed else (gate + j * itemsize,)
        record.call(
            compiled.pack_panel(dtype, gate is not None, transposed), source + j * steps[1] * itemsize, *steps, inner,
            min(width, columns - j), width, panels + j * inner * itemsize, *factors,
        )  # fmt: skip


@lru_cache(maxsize=1024)
def pack_table(weight: Shape, dtype: str, transposed: bool) -> Table:
    """weight, panels."""
    record = Recorder()
    record.task()
    pack_calls(record, weight, dtype, transposed, Place(2), Place(3))
    return record.table()


def product_calls(
    record: Recorder, span: tuple[int, int], inner: int, columns: int, dtype: str, places: tuple[Place, Place, Place],
    bias: Place | None = None,
) -> None:  # fmt: skip
    """Record y = x B + b for the positions of `span`; places are of x, the panels and y."""
    itemsize, (x, panels, y) = np.dtype(dtype).itemsize, places
    widths = panel_widths(columns, dtype)
    lanes, most = target().lanes(itemsize), target().vecs
    full = columns // (most * lanes) * most * lanes
    for first, last, vecs in ((0, full, most), (full, columns, widths[-1][1])):
        if first < last:
            uneven = (last - first) % (vecs * lanes) != 0
            record.call(
                compiled.product(dtype, vecs, uneven, bias is not None), x, inner, panels + first * inner * itemsize, y,
                columns, first, last, *span, *([] if bias is None else [bias]),
            )  # fmt: skip


@lru_cache(maxsize=1024)
def product_table(x: Shape, y: Shape, dtype: str, biased: bool) -> Table:
    """x, panels, y and perhaps a bias."""
    record, m = Recorder(), int(np.prod(x[:-1]))
    for span in spans(m, target().rows):
        record.task()
        product_calls(record, span, x[-1], y[-1], dtype, (Place(2), Place(3), Place(4)), Place(5) if biased else None)
    return record.table()


def masked(channels: int, dtype: str) -> bool:
    """Whether the last vector of that many channels is not whole."""
    return channels % target().lanes(np.dtype(dtype).itemsize) != 0


def spans(count: int, multiple: int) -> Iterator[tuple[int, int]]:
    """`range(count)` in at most TASKS pieces whose lengths, but the last's, are multiples."""
    step = -(-count // (TASKS * multiple)) * multiple
    return ((first, min(first + step, count)) for first in range(0, count, step))


def grad_weight_calls(record: Recorder, x: Shape, gy: Shape, dtype: str, places: tuple[Place, Place, Place]) -> None:
    """Record gw = gy^T x, a task for each piece of gw; places are of x, gy and gw.

    Vectors lie along the longer side. A task adds up the chains of its piece in scratch memory:
    the sum of a group, continued block by block of positions, and the sum of the groups in float64.
    """
    if gy[-1] > x[-1]:
        sides, steps, (narrow, wide_, gw) = (x[-1], gy[-1]), (1, x[-1]), places
    else:
        sides, steps, (wide_, narrow, gw) = (gy[-1], x[-1]), (x[-1], 1), places
    itemsize = np.dtype(dtype).itemsize
    for rows, columns, vecs, masked in _pieces(sides, dtype):
        count = (rows[1] - rows[0]) * (columns[1] - columns[0])
        chain = record.scratch(count * itemsize)
        total = record.scratch(count * 8, offset=-(-count * itemsize // 64) * 64)
        width = columns[1] - columns[0]
        record.task()
        for number, (first, last) in enumerate(Groups(x)):
            record.call(sums.clear(dtype), chain, count)
            for m in range(first, last, BLOCK):
                record.call(
                    compiled.outer(dtype, vecs, masked), narrow, sides[0], *rows, wide_, sides[1], *columns,
                    m, min(m + BLOCK, last), chain, width,
                )  # fmt: skip
            record.call(sums.join_groups(dtype), chain, total, count, number == 0)
        offset = (rows[0] * steps[0] + columns[0] * steps[1]) * itemsize
        record.call(compiled.round_piece(dtype), total, rows[1] - rows[0], width, gw + offset, *steps)


def _pieces(sides: tuple[int, int], dtype: str) -> Iterator[tuple[tuple[int, int], tuple[int, int], int, bool]]:
    """Rows, columns, vectors of each piece of a gradient: a panel wide, and as high as scratch memory allows."""
    lanes = target().lanes(np.dtype(dtype).itemsize)
    panels = panel_widths(sides[1], dtype)
    high = min(ROOM // (target().vecs * lanes), max(target().rows, -(-sides[0] * len(panels) // TASKS)))
    high = -(-high // target().rows) * target().rows
    for j, vecs in panels:
        last, mask = panel_stop(j, vecs, sides[1], dtype)
        for o in range(0, sides[0], high):
            yield (o, min(o + high, sides[0])), (j, last), vecs, mask


def grad_weight_scratch(inputs: int, outputs: int, dtype: str) -> int:
    """Bytes of scratch memory that the weight's gradient takes, on the threads in force."""
    itemsize = np.dtype(dtype).itemsize
    pieces = list(_pieces((min(inputs, outputs), max(inputs, outputs)), dtype))
    most = max((rows[1] - rows[0]) * (columns[1] - columns[0]) for rows, columns, _, _ in pieces)
    return scratch_bytes(-(-most * itemsize // 64) * 64 + most * 8, len(pieces))


@lru_cache(maxsize=1024)
def grad_weight_table(x: Shape, gy: Shape, dtype: str) -> Table:
    """x, gy, gw."""
    record = Recorder()
    grad_weight_calls(record, x, gy, dtype, (Place(2), Place(3), Place(4)))
    return record.table()
