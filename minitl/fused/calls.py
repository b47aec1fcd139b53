"""A stage's kernel calls on some rows of one sample. The kernels are the ops' own.

Places of maps are of the batch's first position; `Filter` holds a convolution's weight as its kernel reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, positions, size
from minitl.fused.program import Stage
from minitl.fused.work import Unit
from minitl.kernels import dense, depthwise, elementwise, pointwise
from minitl.kernels.compile import Lazily
from minitl.kernels.tasks import Place, Recorder

channels, compiled, sums = (Lazily(f"minitl.kernels.compiled.{name}") for name in ("channels", "pointwise", "sums"))

CHUNK = 1 << 18  # bytes of a map that stay in the cache from one pass to the next

Rows = tuple[int, int]


class Band(NamedTuple):
    """Rows r0 .. r1 - 1 of sample n, which are positions m0 .. m1 - 1 of the batch."""

    n: int
    rows: Rows
    span: Rows


def itemsize(dtype: str) -> int:
    """Bytes of a number."""
    return np.dtype(dtype).itemsize


def bands(stage_map: tuple[int, ...], unit: Unit, dtype: str) -> Iterator[Band]:
    """A unit's samples, in bands of rows that fit the cache."""
    _, height, width, channels = stage_map
    step = max(1, CHUNK // (width * channels * itemsize(dtype)))
    for n in range(unit.first, unit.stop):
        for r in range(0, height, step):
            stop = min(r + step, height)
            start = n * height * width
            yield Band(n, (r, stop), (start + r * width, start + stop * width))


def filter_size(stage: Stage, dtype: str, *, back: bool = False) -> int:
    """Numbers in the weight as the convolution (or its input gradient) reads it."""
    weight = stage.conv.shapes[-1] if stage.gated else stage.conv.shapes[1]
    if stage.pointwise:
        return pointwise.packed_size(weight[:2], dtype, not back)
    return size(weight) if back or stage.depthwise else dense.panels_size(weight, dtype)


def prepare(stage: Stage, weight: Array, dtype: str, out: Array, *, back: bool = False) -> None:
    """Write the weight into `out` as the convolution, or its input gradient, reads it."""
    if stage.pointwise:
        pointwise.pack_table(weight.shape[:2], dtype, not back).run(weight, out)
    elif stage.depthwise:
        out.reshape(*weight.shape[2:], -1)[...] = weight[:, 0].transpose(1, 2, 0)
    elif back:
        out.reshape(*weight.shape[2:], *weight.shape[:2])[...] = weight.transpose(2, 3, 0, 1)
    else:
        matrix = dense.taps_first(weight)
        pointwise.pack_table(matrix.shape, dtype, False).run(matrix, out)


def convolve(to: Recorder, stage: Stage, band: Band, dtype: str, x: Place, filters: Place, y: Place) -> None:
    """y = conv(x) for a band of y."""
    itself = itemsize(dtype)
    if stage.pointwise:
        pointwise.product_calls(to, band.span, stage.x[3], stage.y[3], dtype, (x, filters, y))
        return
    places = x + band.n * size(stage.x[1:]) * itself, filters, y + band.n * size(stage.y[1:]) * itself
    if stage.depthwise:
        depthwise.forward_call(to, stage.window, stage.x[3], dtype, band.rows, places)
    else:
        dense.forward_calls(to, stage.x, stage.y, stage.window, dtype, band.rows, places, None)


def convolve_back(to: Recorder, stage: Stage, band: Band, dtype: str, gy: Place, filters: Place, gx: Place) -> None:
    """gx for a band of x."""
    itself = itemsize(dtype)
    if stage.pointwise:
        pointwise.product_calls(to, band.span, stage.y[3], stage.x[3], dtype, (gy, filters, gx))
        return
    places = gy + band.n * size(stage.y[1:]) * itself, filters, gx + band.n * size(stage.x[1:]) * itself
    depthwise.grad_input_call(to, stage.window, stage.x[3], dtype, band.rows, places)


def pack_gated(
    to: Recorder, stage: Stage, dtype: str, weight: Place, gate: Place, n: int, panels: Place, *, back: bool
) -> None:
    """The weight times sample n's gate, in panels."""
    inputs = stage.x[3]
    factor = gate + n * inputs * itemsize(dtype)
    pointwise.pack_calls(to, (stage.y[3], inputs), dtype, not back, weight, panels, factor)


def grad_weight(
    to: Recorder, stage: Stage, dtype: str, x: tuple[int, ...], y: tuple[int, ...], places: tuple[Place, Place, Place]
) -> None:
    """All tasks of gW, from x and gy (places: x, gy, gw)."""
    if stage.pointwise:
        pointwise.grad_weight_calls(to, x, y, dtype, places)
    elif stage.depthwise:
        depthwise.grad_weight_calls(to, x, stage.window, dtype, places)
    else:
        dense.grad_weight_calls(to, x, y, stage.window, dtype, places)


def up(
    to: Recorder, stage: Stage, band: Band, unit: Unit, norm: int, dtype: str, places: tuple[Place, ...], edges: Place
) -> None:
    """Norm, activation and codes of a band; `places` as in `elementwise.up_call`, `edges` has a row per unit.

    Where the unit's first byte of codes is the unit before's too, its bits go to its own row of `edges`.
    """
    channels, per_byte = stage.y[3], 8 // (stage.codes.bits if stage.codes else 8)
    packed, first = places[-1], unit.first * positions(stage.y[1:])
    edge = edges + unit.number * channels if band.span[0] == first else packed + band.span[0] // per_byte * channels
    elementwise.up_call(to, band.span, channels, dtype, (norm, *stage.names), places, edge)


def weight_scratch(stage: Stage, dtype: str) -> tuple[int, int]:
    """Scratch bytes per thread of gW, and its number of tasks: they do not depend on the batch."""
    recorder = Recorder()
    grad_weight(recorder, stage, dtype, (1, *stage.x[1:]), (1, *stage.y[1:]), (Place(2), Place(3), Place(4)))
    return recorder.size


def grad_gated(to: Recorder, stage: Stage, dtype: str, places: tuple[Place, ...], samples: int = 0) -> None:
    """All tasks of gW and of the gate's gradient: a panel of columns each. Places: x, gy, gw, weight, gate, of_gate.

    G_n, a chain over a sample's positions, goes to both: summed over o with W, and over n with the gate.
    """
    x, gy, gw, weight, gate, of_gate = places
    (n, height, width, inputs), outputs, itself = stage.x, stage.y[3], itemsize(dtype)
    for j, vecs in pointwise.panel_widths(inputs, dtype):
        stop, mask = pointwise.panel_stop(j, vecs, inputs, dtype)
        count = outputs * (stop - j)
        chain = to.scratch(count * itself)
        total = to.scratch(count * 8, offset=-(-count * itself // 64) * 64)
        to.task()
        for i in range(samples or n):
            to.call(sums.clear(dtype), chain, count)
            first, last = i * height * width, (i + 1) * height * width
            to.call(
                compiled.outer(dtype, vecs, mask),
                gy,
                outputs,
                0,
                outputs,
                x,
                inputs,
                j,
                stop,
                first,
                last,
                chain,
                stop - j,
            )
            own = (gate + (i * inputs + j) * itself, of_gate + (i * inputs + j) * 8)
            to.call(
                channels.gate_gradient(dtype),
                chain,
                total,
                outputs,
                stop - j,
                weight + j * itself,
                inputs,
                *own,
                i == 0,
            )
        to.call(compiled.round_piece(dtype), total, outputs, stop - j, gw + j * itself, inputs, 1)


def gated_scratch(stage: Stage, dtype: str) -> tuple[int, int]:
    """Scratch bytes per thread of that, and its number of tasks."""
    recorder = Recorder()
    grad_gated(recorder, stage, dtype, tuple(Place(i) for i in range(2, 8)), samples=1)
    return recorder.size
