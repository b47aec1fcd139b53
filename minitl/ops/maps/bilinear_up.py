"""Bilinear interpolation to a given size, corners not aligned (PyTorch's `align_corners=False`).

Output row i stands at t = max((i + 1/2) H / Ho - 1/2, 0) among the input rows; with r = floor(t), l = t - r,

    rows     z[i] = (1 - l) x[r] + l x[min(r + 1, H - 1)]        and y from z alike, column by column

It is linear, so backward applies the transpose: gz adds each column's share of gy, gx each row's
share of gz. Nothing is kept.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, is_count, size
from minitl.errors import ShapeError, brief
from minitl.ops.expect import expect_map
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.ops.room import Room, made, room_bytes
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, Ho, Wo, C) for x (N, H, W, C) and the attribute `size`, (Ho, Wo)."""
    (x,), target = shapes, attrs.get("size", (0, 0))
    expect_map("bilinear_up", x)
    two = isinstance(target, tuple) and len(target) == 2
    if not two or not all(is_count(new, old) for new, old in zip(target, x[1:3], strict=True)):
        expected = f"a size (height, width) of at least {x[1:3]}"
        raise ShapeError(op="bilinear_up", expected=expected, got=brief(target))
    return (x[0], *target, x[3])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """Interpolate rows, then columns; keeps nothing."""
    y = np.empty(output_shape((x.shape,), attrs), x.dtype)
    z, row, column = made(_room(x.shape, y.shape, x.dtype.name))
    for i, (low, high, share) in enumerate(_places(x.shape[1], y.shape[1])):
        np.multiply(x[:, low], 1 - share, out=z[:, i])
        z[:, i] += np.multiply(x[:, high], share, out=row)
    for j, (low, high, share) in enumerate(_places(x.shape[2], y.shape[2])):
        np.multiply(z[:, :, low], 1 - share, out=y[:, :, j])
        y[:, :, j] += np.multiply(z[:, :, high], share, out=column)
    return y, Saved()


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """The transpose: shares of columns, then of rows, added up in order."""
    gx = np.zeros(saved.input_shape, gy.dtype)
    gz, row, column = made(_room(gx.shape, gy.shape, gy.dtype.name))
    gz[...] = 0
    for j, (low, high, share) in enumerate(_places(gx.shape[2], gy.shape[2])):
        gz[:, :, low] += np.multiply(gy[:, :, j], 1 - share, out=column)
        gz[:, :, high] += np.multiply(gy[:, :, j], share, out=column)
    for i, (low, high, share) in enumerate(_places(gx.shape[1], gy.shape[1])):
        gx[:, low] += np.multiply(gz[:, i], 1 - share, out=row)
        gx[:, high] += np.multiply(gz[:, i], share, out=row)
    return (gx,)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """3 operations per value of z and of y forward, 4 backward."""
    (x,), y = shapes, output_shape(shapes, attrs)
    room = _room(x, y, dtype)
    work, passing = size(room[0][0]) + size(y), room_bytes(room)
    flops = Split(3 * work, needs[0] * 4 * work)
    return Cost(output=y, flops=flops, forward_workspace=passing, backward_workspace=passing)


def _room(x: Shape, y: Shape, dtype: str) -> Room:
    """Rows interpolated (N, Ho, W, C), a row of them (N, W, C) and a column (N, Ho, C)."""
    n, _, width, channels = x
    return [((n, y[1], width, channels), dtype), ((n, width, channels), dtype), ((n, y[1], channels), dtype)]


def _places(source: int, target: int) -> list[tuple[int, int, float]]:
    """For each line of the target, the two lines of the source beside it, and the second one's share."""
    at = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)
    low = at.astype(int)
    return [(int(r), min(int(r) + 1, source - 1), float(share)) for r, share in zip(low, at - low, strict=True)]


bilinear_up = Op("bilinear_up", ("x",), Functions(output_shape, forward, backward, cost), attrs=("size",))
