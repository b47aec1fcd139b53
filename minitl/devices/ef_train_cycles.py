"""EF-Train's cycle model of a convolution on an array of T x T multiply-adders.

Tang, Zhang, Zhou & Hu, "EF-Train", ACM TODAES 27(5), 2022, arXiv:2202.10935; stated anew from the
formulas of the paper and of its scheduler (tangyuelm/EF-Train). Everything in cycles; p words per
cycle and stream, s cycles to start one. A layer is cut into tiles of Tr rows x all columns; each
tile of T outputs and T inputs takes

    load of its input        I = s + ceil(min(inputs, T) / p) (rows read) (columns read)
    load of its weights      W = ceil(T T / p) k^2          forward
                             W = ceil(g T / p) k^2 + s      input gradient, g outputs at a time
    compute                  C = Tr Tc k^2
    store of its output      O = ceil(T / p) Tr Tc

Loads, computing and stores overlap (double buffers), so a tile costs the largest of those that happen
together. Weights stay on chip for a whole batch: only its first image loads them. The weight gradient
loads the output gradient besides, G = s + ceil(T / p) Tr Tc, and stores ceil(T T / p) k^2.
Tr is the best that fits the buffers; g is the largest group of output channels whose weights fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Array:
    """The array and its buffers, as published for the ZCU102 board.

    The scheduler allows 55 weight tiles where the hardware's own header reserves 64; this follows the scheduler.
    """

    tile: int = 16
    words: int = 4
    start: int = 400
    output_words: int = 2016
    input_words: int = 2486
    weight_tiles: int = 55
    kernel: int = 3  # the largest there is


@dataclass(frozen=True)
class Conv:
    """A dense convolution: channels, rows and columns of its output, kernel, stride, images."""

    outputs: int
    inputs: int
    rows: int
    columns: int
    kernel: int
    stride: int
    batch: int

    @property
    def macs(self) -> int:
        """Multiply-adds of one pass."""
        return self.outputs * self.inputs * self.rows * self.columns * self.kernel**2 * self.batch


def forward(conv: Conv, array: Array) -> int | None:
    """Cycles of the forward pass, or None where not even one row fits the buffers."""
    return _best(conv, array, lambda rows, group: _products(conv, array, rows, group, backward=False))


def grad_input(conv: Conv, array: Array) -> int | None:
    """Cycles of the input gradient, which is a convolution from outputs to inputs (stride 1 only)."""
    back = Conv(conv.inputs, conv.outputs, conv.rows, conv.columns, conv.kernel, 1, conv.batch)
    return _best(back, array, lambda rows, group: _products(back, array, rows, group, backward=True))


def grad_weight(conv: Conv, array: Array) -> int | None:
    """Cycles of the weight gradient."""
    return _best(conv, array, lambda rows, group: _weight_update(conv, array, rows, group))


def _best(conv: Conv, array: Array, cost: Callable[[int, int], int]) -> int | None:
    """The least cost over all tile heights that fit, for all groups of output channels."""
    fitting = [rows for rows in range(1, conv.rows + 1) if _fits(conv, array, rows)]
    group = _group(conv, array)
    last = conv.outputs % group or group
    full = -(-conv.outputs // group) - 1
    return min((full * cost(rows, group) + cost(rows, last) for rows in fitting), default=None)


def _fits(conv: Conv, array: Array, rows: int) -> bool:
    return rows * conv.columns <= array.output_words and _input_tile(conv, rows) <= array.input_words


def _input_tile(conv: Conv, rows: int) -> int:
    """Positions that a tile of `rows` full output rows reads."""
    return ((rows - 1) * conv.stride + conv.kernel) * ((conv.columns - 1) * conv.stride + conv.kernel)


def _group(conv: Conv, array: Array) -> int:
    """The most output channels whose weights fit: all, or a multiple of T, as the published scheduler tries them."""
    t = array.tile
    tiles_per_output_tile = _ceil(_ceil(conv.inputs, 2 * t), (array.kernel // conv.kernel) ** 2)
    bound = array.weight_tiles // tiles_per_output_tile * t
    largest = (conv.outputs // t - 1) * t  # the scheduler leaves out the multiple nearest to all
    return conv.outputs if conv.outputs <= bound or largest < t else max(t, min(bound, largest))


def _input_load(conv: Conv, array: Array, rows: int) -> int:
    channels = conv.inputs if conv.inputs <= array.words else array.tile
    return array.start + _ceil(channels, array.words) * _input_tile(conv, rows)


def _products(conv: Conv, array: Array, rows: int, group: int, *, backward: bool) -> int:
    """Forward or input gradient, for `group` output channels."""
    t, p, s = array.tile, array.words, array.start
    load, compute = _input_load(conv, array, rows), rows * conv.columns * conv.kernel**2
    weights = _ceil(group * t if backward else t * t, p) * conv.kernel**2 + (s if backward else 0)
    store = _ceil(t, p) * rows * conv.columns
    input_tiles, row_tiles, output_tiles = _ceil(conv.inputs, t), _ceil(conv.rows, rows), _ceil(group, t)

    def one(steady: int, final: int) -> int:  # all input tiles of one output tile
        return (input_tiles - 1) * steady + load + final

    steady, first = max(load, compute), max(load, weights, compute)
    usual, fresh = one(steady, max(compute, store)), one(first, max(compute, store))
    image = (output_tiles * row_tiles - 1) * usual + one(steady, compute) + store + s
    if backward:
        first_image = (output_tiles * row_tiles - 1) * usual + one(first, compute) + store + s
    else:
        reused = output_tiles * (row_tiles - 1) * usual
        first_image = reused + (output_tiles - 1) * fresh + one(first, compute) + store + s
    return (conv.batch - 1) * image + first_image


def _weight_update(conv: Conv, array: Array, rows: int, group: int) -> int:
    """Weight gradient, for `group` output channels."""
    t, p = array.tile, array.words
    load, compute = _input_load(conv, array, rows), rows * conv.columns * conv.kernel**2
    both = max(load, array.start + _ceil(t, p) * rows * conv.columns)  # input and output gradient, side by side
    store = _ceil(t * t, p) * conv.kernel**2
    input_tiles, row_tiles, output_tiles = _ceil(conv.inputs, t), _ceil(conv.rows, rows), _ceil(group, t)
    if rows < conv.rows:
        sweep = (row_tiles - 1) * max(both, compute) + both
        pairs = output_tiles * input_tiles
        return ((conv.batch - 1) * pairs + 1) * (sweep + compute) + (pairs - 1) * (sweep + max(compute, store)) + store
    usual = (input_tiles - 1) * max(load, compute) + both + compute
    final = (input_tiles - 1) * (max(load, compute) + store) + both + compute + store
    return output_tiles * ((conv.batch - 1) * usual + final)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
