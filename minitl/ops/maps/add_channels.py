"""Add one number per sample and channel to a map:  y[n, h, w, c] = x[n, h, w, c] + v[n, c].

gx = gy, gv = the sum of gy over (h, w). Nothing is kept.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.ops.expect import expect_factors
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, beyond
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (N, H, W, C); v is (N, 1, 1, C)."""
    return expect_factors("add_channels", "v", shapes)


def forward(x: Array, v: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = x + v, v (N, 1, 1, C); keeps nothing."""
    return x + v, Saved()


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """A copy of gy, and its sums over the positions, in float64."""
    gv = gy.sum(axis=(1, 2), keepdims=True, dtype=np.float64).astype(gy.dtype) if needs[1] else None
    return gy.copy() if needs[0] else None, gv


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation per value forward, and 1 for gv."""
    (x, v), n = shapes, size(shapes[0])
    gx, gv = needs[0] * nbytes(x, dtype), needs[1] * nbytes(v, dtype)
    summing = needs[1] * (nbytes(v, "float64") + gv)
    return Cost(output=x, flops=Split(n, needs[1] * n), backward_workspace=beyond(gx + gv, summing))


add_channels = Op("add_channels", ("x", "v"), Functions(output_shape, forward, backward, cost), activations=2)
