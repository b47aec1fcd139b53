"""Average pool over windows of s x s:  y[n, i, j, c] = sum over u, v < s of x[n, s i + u, s j + v, c] / s^2.

gx is gy / s^2 at the s^2 positions of its window; rows and columns that fill no window are left out, and
their gx is 0. Nothing is kept: backward needs only the shape of x.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minitl.arrays import Array, Shape, is_count, size
from minitl.errors import ShapeError, ValueRangeError, brief
from minitl.ops.expect import expect_map
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, H // s, W // s, C) for x (N, H, W, C) and the attribute `window`, s."""
    (x,), s = shapes, attrs.get("window", 2)
    expect_map("avg_pool", x)
    if not is_count(s, 1):
        raise ValueRangeError(op="avg_pool", expected="window to be a whole number, at least 1", got=brief(s))
    if min(x[1:3]) < s:
        expected, got = f"a map of at least {s} x {s}", f"{x[1]} x {x[2]}"
        raise ShapeError(op="avg_pool", expected=expected, got=got, remedy="use larger images, or no side module here")
    return (x[0], x[1] // s, x[2] // s, x[3])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The mean of each window, its terms added in (u, v) order; keeps nothing."""
    first, *others = _places(x, attrs.get("window", 2))
    y = first.copy()
    for place in others:
        y += place
    y /= len(others) + 1
    return y, Saved()


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = gy / s^2 over each window, 0 outside all windows."""
    gx, s = np.zeros(saved.input_shape, gy.dtype), attrs.get("window", 2)
    for place in _places(gx, s):
        np.divide(gy, s * s, out=place)
    return (gx,)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """s^2 operations per value of y forward, and as many divisions backward."""
    y = output_shape(shapes, attrs)
    work = attrs.get("window", 2) ** 2 * size(y)
    return Cost(output=y, flops=Split(work, needs[0] * work))


def _places(x: Array, s: int) -> Iterator[Array]:
    """Views of x (N, H // s, W // s, C): the values at each place (u, v) of all windows."""
    high, wide = x.shape[1] // s * s, x.shape[2] // s * s
    return (x[:, u:high:s, v:wide:s] for u in range(s) for v in range(s))


avg_pool = Op("avg_pool", ("x",), Functions(output_shape, forward, backward, cost), attrs=("window",))
