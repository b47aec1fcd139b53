"""Mistakes in convolutions and linear layers, as maps around the right op.

Most of them are the right op on operands that were read wrongly, or with a wrong selection of its
outputs: y = T(op(A(x), B(w))) with linear maps A, B, T. Their gradients follow by the adjoint maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, Shape
from minitl.oracle.mistakes.formats import FORMATS
from minitl.oracle.mistakes.tape import Backward, Call, Change, Forward, Mistake
from minitl.oracle.recipes import SAME as SAME_PADDING
from minitl.oracle.recipes import SYMMETRIC, VALID, padding

SPATIAL = ("conv", "depthwise_conv", "grouped_conv", "standardised_conv")
MATRICES = ("pointwise_conv", "linear")
DENSE = ("conv", *MATRICES)
ALL = (*SPATIAL, "pointwise_conv", "linear")
PAD = 4  # rows and columns around a map on its canvas: more than any shift, and even, as strides are


class Map(NamedTuple):
    """A linear map of an array, and its adjoint."""

    to: Change
    back: Change


Maps = Callable[[Call], tuple[Map, Map, Map]]  # of x, w and y
SAME = Map(lambda a: a, lambda a: a)


def mistakes(right: str = SYMMETRIC) -> Iterator[Mistake]:
    """All of them; `right` is the case's padding."""
    yield from _misread_weights()
    for other, name in PADDINGS.items():
        if other != right:
            yield _padded(f"{name}: {right_padding(right)}", other)
    for by, what in ((1, "too many"), (-1, "too few")):
        off_by_one = partial(_shifted, down=by, right=by)
        yield around(f"padding off by one: one row and column {what} before", SPATIAL, off_by_one)
    yield around("replicate padding where zeros are right", SPATIAL, _replicated)
    yield Mistake("replicate padding where zeros are right", SPATIAL, None, _replicated_cut)
    yield around("borders skipped: outputs whose window leaves the map are missing", SPATIAL, _inner)
    text = "borders skipped in the bias's gradient: outputs whose last tap lies in the padding are missing"
    yield Mistake(text, SPATIAL, None, _bias_of_inner)
    yield around("padding ignored: windows begin at the map's first row and column", SPATIAL, _unpadded)
    yield _unstrided("stride ignored", lambda c: (SAME, SAME, SAME))
    yield _unstrided("stride ignored and padding ignored", _unpadded)
    for axis, letter in ((1, "H"), (2, "W")):
        for by in (1, -1):
            yield around(f"shifted by one along {letter}", (*SPATIAL, "pointwise_conv"), _outputs_moved(axis, by))
    yield Mistake("bias left out", ALL, lambda c: c.forward(*c.arrays[:2], *(0 * b for b in c.arrays[2:])))
    yield from _sums()
    for name, rounded in FORMATS.items():
        yield Mistake(f"low precision: operands in {name}", ALL, _rounded_forward(rounded), _rounded_backward(rounded))


def _misread_weights() -> Iterator[Mistake]:
    yield _weights("filter flipped", SPATIAL, lambda c: _FLIP)
    yield _weights("weights read transposed (kernel width before height)", SPATIAL, lambda c: _TURN)
    for once in (_in_out, lambda c: _inverse(_in_out(c))):
        for of in (DENSE, MATRICES):
            yield _weights("weights read transposed: as (in, out), not (out, in)", of, once)
        twice = "weights read transposed: rows and columns exchanged in making a transposed copy"
        yield _weights(twice, MATRICES, partial(_twice, once))
    yield _weights("weights read transposed: as HWIO, not OIHW", SPATIAL, lambda c: _order(c, (2, 3, 1, 0)))
    yield _weights("weights read transposed: as OHWI, not OIHW", SPATIAL, lambda c: _order(c, (0, 2, 3, 1)))
    for one in (_roll(1), _roll(-1)):
        yield _weights("neighbour's weights: filters shifted by one channel", ALL, partial(_always, one))


def _weights(cause: str, ops: tuple[str, ...], of: Callable[[Call], Map]) -> Mistake:
    return around(cause, ops, lambda c: (SAME, of(c), SAME))


def _always(one: Map, c: Call) -> Map:
    return one


def around(cause: str, ops: tuple[str, ...], maps: Maps) -> Mistake:
    """The right op between linear maps, with the gradients that follow."""
    return Mistake(cause, ops, partial(_between, maps), partial(_between_back, maps))


def _between(maps: Maps, c: Call) -> Array:
    of_x, of_w, of_y = maps(c)
    bias = c.arrays[2:]
    y = of_y.to(c.forward(of_x.to(c.x), of_w.to(c.arrays[1]), *(0 * b for b in bias)))
    return y + bias[0] if bias else y


def _between_back(maps: Maps, c: Call, gy: Array) -> tuple[Array | None, ...]:
    of_x, of_w, of_y = maps(c)
    gx, gw, *_ = c.backward(of_y.back(gy), of_x.to(c.x), of_w.to(c.arrays[1]), *c.arrays[2:])
    right = c.backward(gy)[2:]  # a bias knows nothing of windows
    return (None if gx is None else of_x.back(gx), None if gw is None else of_w.back(gw), *right)


# Weights.

_FLIP = Map(lambda w: w[..., ::-1, ::-1], lambda g: g[..., ::-1, ::-1])
_TURN = Map(lambda w: w.swapaxes(2, 3), lambda g: g.swapaxes(2, 3))


def _roll(by: int) -> Map:
    return Map(lambda w: np.roll(w, by, 0), lambda g: np.roll(g, -by, 0))


def _outputs_moved(axis: int, by: int) -> Maps:
    """Outputs one place along an axis; zeros come in. A map of one position stays."""

    def move(y: Array, by: int) -> Array:
        if y.shape[axis] == 1:
            return y
        moved = np.roll(y, by, axis)
        moved[(slice(None),) * axis + (slice(0, 1) if by > 0 else slice(-1, None),)] = 0
        return moved

    return lambda c: (SAME, SAME, Map(lambda y: move(y, by), lambda g: move(g, -by)))


def _order(c: Call, axes: tuple[int, ...]) -> Map:
    """The weights' memory (out, in, k, k) read as if its axes stood in another order."""
    shape = c.arrays[1].shape
    stored: Shape = tuple(shape[i] for i in axes)
    inverse = tuple(np.argsort(axes))
    return Map(
        lambda w: w.reshape(stored).transpose(inverse),
        lambda g: g.transpose(axes).reshape(shape),
    )


def _in_out(c: Call) -> Map:
    return _order(c, (1, 0, *range(2, c.arrays[1].ndim)))


def _twice(once: Callable[[Call], Map], c: Call) -> Map:
    m = once(c)
    return Map(lambda w: m.to(m.to(w)), lambda g: m.back(m.back(g)))


# Where a window lies.


def _pads(c: Call) -> tuple[int, ...]:
    """Zeros before and after each axis: (top, bottom, left, right)."""
    return tuple(c.attrs.get("padding") or (c.arrays[1].shape[2] // 2,) * 4)


def _extents(c: Call, more: int = 0) -> tuple[int, int]:
    """Rows and columns that come out, for a map with that many more of both."""
    (top, bottom, left, right), kernel, stride = _pads(c), c.arrays[1].shape[2], c.attrs.get("stride", 1)
    high, wide = c.x.shape[1] + more + top + bottom, c.x.shape[2] + more + left + right
    return (high - kernel) // stride + 1, (wide - kernel) // stride + 1


def _starts(c: Call) -> tuple[Array, Array]:
    """The first row and column of each window, below 0 in the padding."""
    (top, _, left, _), stride = _pads(c), c.attrs.get("stride", 1)
    rows, columns = _extents(c)
    return stride * np.arange(rows) - top, stride * np.arange(columns) - left


def _shifted(c: Call, down: int, right: int) -> tuple[Map, Map, Map]:
    """Windows moved up and left: as with that many more rows and columns of padding before the map."""
    (_, height, width, _), first = c.x.shape, PAD // c.attrs.get("stride", 1)
    canvas = height + 2 * PAD, width + 2 * PAD
    return (
        _window(PAD + down, PAD + right, height, width, canvas),
        SAME,
        _inverse(_window(first, first, *_extents(c), _extents(c, 2 * PAD))),
    )


def _window(top: int, left: int, height: int, width: int, canvas: tuple[int, int]) -> Map:
    """A map placed amid zeros; the adjoint takes it out again."""
    around = ((0, 0), (top, canvas[0] - top - height), (left, canvas[1] - left - width), (0, 0))
    return Map(lambda x: np.pad(x, around), lambda g: g[:, top : top + height, left : left + width])


def _inverse(m: Map) -> Map:
    return Map(m.back, m.to)


PADDINGS = {
    SAME_PADDING: "SAME padding as TensorFlow's",
    SYMMETRIC: "symmetric padding of (k - 1) / 2",
    VALID: "valid padding",
}


def right_padding(text: str) -> str:
    """What is to be said of a case's padding where another was taken."""
    by_name = {
        SYMMETRIC: "symmetric padding of (k - 1) / 2 zeros on all sides is right",
        SAME_PADDING: "TensorFlow's SAME padding is right",
        VALID: "valid padding, none at all, is right",
    }
    return by_name.get(text, f"zeros of {text} (top, bottom, left, right) are right")


def _padded(cause: str, text: str) -> Mistake:
    """Another padding of which as many outputs come."""

    def other(c: Call) -> tuple[int, ...]:
        attrs = {"kernel": c.arrays[1].shape[2], "stride": c.attrs.get("stride", 1), "padding": text}
        return padding(attrs, c.x.shape[1:3])

    return Mistake(
        cause, SPATIAL, lambda c: c.forward(padding=other(c)), lambda c, gy: c.backward(gy, padding=other(c))
    )  # fmt: skip


def _replicated(c: Call) -> tuple[Map, Map, Map]:
    """Borders repeated outwards; the adjoint adds up what flows to a border's copies."""
    top, bottom, left, right = _pads(c)
    _, _, of_y = _shifted(c, 0, 0)
    height, width = c.x.shape[1:3]
    rows, columns = (np.clip(np.arange(-PAD, n + PAD), 0, n - 1) for n in (height, width))
    down, across = np.arange(-PAD, height + PAD)[:, None], np.arange(-PAD, width + PAD)[None, :]
    inside = (down >= -top) & (down < height + bottom) & (across >= -left) & (across < width + right)
    inside = inside[None, :, :, None]

    to_rows, to_columns = (np.eye(n)[at] for n, at in ((height, rows), (width, columns)))

    def back(g: Array) -> Array:
        return np.asarray(np.einsum("nabc,ah,bw->nhwc", g * inside, to_rows, to_columns))

    return Map(lambda x: x[:, rows][:, :, columns] * inside, back), SAME, of_y


def _replicated_cut(c: Call, gy: Array) -> tuple[Array | None, ...]:
    """The same, where what flows to a border's copies is dropped."""
    of_x, _, of_y = _replicated(c)
    gx, *rest = c.backward(of_y.back(gy), of_x.to(c.x), *c.arrays[1:])
    return (None if gx is None else _shifted(c, 0, 0)[0].back(gx), *rest)


def _inner(c: Call) -> tuple[Map, Map, Map]:
    """Only the outputs whose window lies within the map."""
    kernel, (down, across), (_, height, width, _) = c.arrays[1].shape[2], _starts(c), c.x.shape
    rows, columns = (down >= 0) & (down + kernel <= height), (across >= 0) & (across + kernel <= width)
    inside = (rows[:, None] & columns[None, :])[None, :, :, None]
    return SAME, SAME, Map(lambda y: y * inside, lambda g: g * inside)


def _bias_of_inner(c: Call, gy: Array) -> tuple[Array | None, ...]:
    kernel, (down, across), (_, height, width, _) = c.arrays[1].shape[2], _starts(c), c.x.shape
    inside = ((down + kernel <= height)[:, None] & (across + kernel <= width)[None, :])[None, :, :, None]
    return (*c.backward(gy)[:2], *c.backward(gy * inside)[2:])


def _unstrided(cause: str, maps: Maps) -> Mistake:
    """With stride 1 where it is 2: as many outputs as are asked for, from the first window on."""

    def forward(c: Call) -> Array:
        rows, columns = _extents(c)
        return _between(maps, _at_stride_1(c))[:, :rows, :columns]

    def backward(c: Call, gy: Array) -> tuple[Array | None, ...]:
        full = np.zeros((len(gy), *_extents(_at_stride_1(c)), gy.shape[3]))
        full[:, : gy.shape[1], : gy.shape[2]] = gy
        return _between_back(maps, _at_stride_1(c), full)

    return Mistake(cause, SPATIAL, forward, backward)


def _at_stride_1(c: Call) -> Call:
    return replace(c, attrs={**c.attrs, "stride": 1})


def _unpadded(c: Call) -> tuple[Map, Map, Map]:
    top, _, left, _ = _pads(c)
    return _shifted(c, -top, -left)


# What is summed.


def _sums() -> Iterator[Mistake]:
    every = (*ALL, "batch_norm", "frozen_norm", "group_norm")
    yield Mistake("last image only: sums over the batch are overwritten", every, None, _of_image(-1))
    yield Mistake("first image only", every, None, _of_image(0))
    yield Mistake("gy ignored (taken as 1)", every, None, lambda c, gy: c.backward(np.ones_like(gy)))


def _of_image(n: int) -> Backward:
    """Gradients of the parameters from one image; that of x from all."""

    def backward(c: Call, gy: Array) -> tuple[Array | None, ...]:
        one = np.zeros_like(gy)
        one[n] = gy[n]
        gx, *_ = c.backward(gy)
        return (gx, *c.backward(one)[1:])

    return backward


def _rounded_forward(rounded: Change) -> Forward:
    return lambda c: c.forward(rounded(c.x), rounded(c.arrays[1]), *c.arrays[2:])


def _rounded_backward(rounded: Change) -> Backward:
    return lambda c, gy: c.backward(rounded(gy), rounded(c.x), rounded(c.arrays[1]), *c.arrays[2:])
