"""Depthwise k x k convolution: one filter per channel.

    y[n, i, j, c]  = sum over (u, v) of W[c, 0, u, v] x[n, s i + u - p, s j + v - p, c]
    gx[n, h, w, c] = sum of W[c, 0, u, v] gy[n, i, j, c] over all (i, u) with s i + u - p = h, (j, v) alike
    gW[c, 0, u, v] = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] gy[n, i, j, c]
    gb[c]          = sum over (n, i, j) of gy[n, i, j, c]                                    where there is a bias

with x zero outside, p = (k - 1) / 2 or the padding given, and stride s (1 or 2). x is kept exactly
when W is trained: gx needs only W. The sums, as plain loops and as kernels, stand in `kernels/depthwise.py`.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.kernels import depthwise
from minitl.kernels.groups import Groups
from minitl.ops.convolutions.products import grad_bias, products_cost, saved_input
from minitl.ops.convolutions.window import conv_shape, window
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, ceil(H / s), ceil(W / s), C) for x (N, H, W, C), weight (C, 1, k, k), optional bias (C,)."""
    return conv_shape("depthwise_conv", shapes, attrs, depthwise=True)


def forward(x: Array, weight: Array, *bias: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The formula above; keeps x when the weight is trained."""
    y = np.empty(output_shape((x.shape, weight.shape), attrs), x.dtype)
    at = window("depthwise_conv", x.shape, y.shape, weight.shape[2], attrs)
    depthwise.forward(x, taps_first(weight), at, y)
    if bias:
        y += bias[0]
    return y, saved_input(x.shape, x if needs[1] else None)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx, gW and gb: those that `needs` asks for."""
    weight, gx, gw = params[0], None, None
    at = window("depthwise_conv", saved.input_shape, gy.shape, weight.shape[2], attrs)
    if needs[0]:
        gx = np.empty(saved.input_shape, gy.dtype)
        depthwise.grad_input(gy, taps_first(weight), at, gx)
    if needs[1]:
        gw = np.empty(weight.shape, gy.dtype)
        depthwise.grad_weight(saved["x"], gy, at, gw)
    return (gx, gw, grad_bias(gy, needs))[: len(needs)]


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """N Ho Wo C k k multiply-adds (taps in the padding included) for each of y, gx and gW."""
    w, y = shapes[1], output_shape(shapes, attrs)
    taps, chains = nbytes(w, dtype), nbytes((len(Groups(y)), *w), dtype)
    return products_cost(
        shapes, y, size(y) * size(w[2:]), dtype, needs,
        forward=taps, grad_input=taps, grad_weight=chains + nbytes(w, "float64"),
    )  # fmt: skip


def taps_first(weight: Array) -> Array:
    """The weight as the kernels read it."""
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))  # (C, 1, k, k) -> (k, k, C)


depthwise_conv = Op(
    "depthwise_conv", ("x", "weight", "bias"), Functions(output_shape, forward, backward, cost),
    attrs=("stride", "padding"), optional=1,
)  # fmt: skip
