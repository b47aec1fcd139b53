"""Linear layer, and pointwise (1x1) convolution: the same product at every position.

    y = x W^T + b          x (M, I), W (O, I), b (O,), y (M, O)
    gx = gy W
    gW = gy^T x            needs x: the input is kept exactly when the weight is trained
    gb = sum of gy over M

`linear` takes x (N, I) and W (O, I); `pointwise_conv` takes x (N, H, W, I) and W (O, I, 1, 1),
and M is N H W. The sums, as plain loops and as kernels, stand in `kernels/pointwise.py`.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, positions
from minitl.errors import ShapeError
from minitl.kernels import pointwise
from minitl.ops.convolutions.products import grad_bias, products_cost, saved_input
from minitl.ops.expect import expect_map, expect_vectors
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes
from minitl.saved import Saved


def linear_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, O) for x (N, I), weight (O, I) and an optional bias (O,)."""
    x, w, *bias = shapes
    if len(x) != 2 or len(w) != 2 or x[1] != w[1] or 0 in x + w:
        raise ShapeError(op="linear", expected="x (N, I) and weight (O, I)", got=f"x {x} and weight {w}")
    if bias:
        expect_vectors("linear", w[0], bias=bias[0])
    return (x[0], w[0])


def pointwise_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, H, W, O) for x (N, H, W, I), weight (O, I, 1, 1) and an optional bias (O,)."""
    x, w, *bias = shapes
    expect_map("pointwise_conv", x)
    if len(w) != 4 or w[1:] != (x[3], 1, 1) or w[0] == 0:
        raise ShapeError(op="pointwise_conv", expected=f"weight (O, {x[3]}, 1, 1) for x {x}", got=f"weight {w}")
    if bias:
        expect_vectors("pointwise_conv", w[0], bias=bias[0])
    return (*x[:3], w[0])


def forward(x: Array, weight: Array, *bias: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = x W^T + b; keeps x when the weight is trained."""
    y = np.empty((*x.shape[:-1], len(weight)), x.dtype)
    pointwise.forward(x, weight.reshape(len(weight), -1), bias[0] if bias else None, y)
    return y, saved_input(x.shape, x if needs[1] else None)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = gy W, gW = gy^T x, gb = sum gy: those that `needs` asks for."""
    weight, gx, gw = params[0], None, None
    if needs[0]:
        gx = np.empty((*gy.shape[:-1], weight.shape[1]), gy.dtype)
        pointwise.grad_input(gy, weight.reshape(len(weight), -1), gx)
    if needs[1]:
        gw = np.empty(weight.shape, gy.dtype)
        pointwise.grad_weight(saved["x"], gy, gw.reshape(len(weight), -1))
    return (gx, gw, grad_bias(gy, needs))[: len(needs)]


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """M I O multiply-adds for each of y, gx and gW; a bias adds M O to forward and to its gradient."""
    x, (o, i) = shapes[0], shapes[1][:2]
    m = positions(x)
    return products_cost(
        shapes, (*x[:-1], o), m * i * o, dtype, needs,
        forward=pointwise.product_workspace(m, (o, i), dtype, True),
        grad_input=pointwise.product_workspace(m, (o, i), dtype, False),
        grad_weight=pointwise.grad_weight_workspace(x, o, dtype),
    )  # fmt: skip


linear = Op("linear", ("x", "weight", "bias"), Functions(linear_shape, forward, backward, cost), optional=1)
pointwise_conv = Op(
    "pointwise_conv", ("x", "weight", "bias"), Functions(pointwise_shape, forward, backward, cost), optional=1
)
