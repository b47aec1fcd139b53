"""Depthwise k x k convolution: one filter a channel.

    y[n, i, j, c]  = sum over (u, v) of W[c, 0, u, v] x[n, s i + u - p, s j + v - p, c]
    gx[n, h, w, c] = sum of W[c, 0, u, v] gy[n, i, j, c] over all (i, u) with s i + u - p = h, (j, v) alike
    gW[c, 0, u, v] = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] gy[n, i, j, c]

with x zero outside, p = (k - 1) / 2 and stride s (1 or 2). x is kept exactly when W is trained:
gx needs only W. With the attribute `portable` the sums run in the order of the loops, one rounding an operation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.kernels import depthwise, depthwise_ordered
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, beyond, keeps_input
from minitl.ops.window import conv_shape
from minitl.saved import Saved


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """(N, ceil(H / s), ceil(W / s), C) for x (N, H, W, C), weight (C, 1, k, k), optional bias (C,)."""
    return conv_shape("depthwise_conv", shapes, attrs, 1)


def forward(x: Array, weight: Array, *bias: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The formula above; keeps x when the weight is trained."""
    y = np.empty(output_shape((x.shape, weight.shape), attrs), x.dtype)
    kernel = depthwise_ordered if attrs.get("portable") else depthwise
    kernel.forward(x, taps_first(weight), attrs.get("stride", 1), y)
    if bias:
        y += bias[0]
    saved = Saved()
    if needs[1]:
        saved.keep("x", x, ("grad_weight",))
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx and gW: those that `needs` asks for."""
    weight, stride = params[0], attrs.get("stride", 1)
    kernel = depthwise_ordered if attrs.get("portable") else depthwise
    gx = gw = None
    if needs[0]:
        gx = np.empty(saved.input_shape, gy.dtype)
        kernel.grad_input(gy, taps_first(weight), stride, gx)
    if needs[1]:
        taps = np.empty((*weight.shape[2:], len(weight)), gy.dtype)
        kernel.grad_weight(saved["x"], gy, stride, taps)
        gw = np.ascontiguousarray(taps.transpose(2, 0, 1)).reshape(weight.shape)
    return (gx, gw, None)[: len(needs)]


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """N Ho Wo C k k multiply-adds (taps in the padding included) for each of y, gx and gW."""
    x, w, *bias = shapes
    y = output_shape(shapes, attrs)
    m = size(y) * size(w[2:])
    macs = Split(m, needs[0] * m, needs[1] * m)
    taps, gx = nbytes(w, dtype), needs[0] * nbytes(x, dtype)
    gw = needs[1] * taps
    kernel = depthwise_ordered if attrs.get("portable") else depthwise
    sizes = y, w[2], attrs.get("stride", 1), np.dtype(dtype).itemsize
    passing, summing = kernel.workspace(*sizes), kernel.grad_weight_workspace(*sizes)
    return Cost(
        output=y,
        kept=(keeps_input("x", 0, x, dtype, ("grad_weight",)),) if needs[1] else (),
        macs=macs,
        flops=Split(2 * m + len(bias) * size(y), 2 * macs.grad_input, 2 * macs.grad_weight),
        forward_workspace=taps + passing,
        backward_workspace=beyond(gx + gw, needs[0] * (gx + taps + passing), needs[1] * (gx + taps + max(gw, summing))),
    )


def taps_first(weight: Array) -> Array:
    """The weight as the kernels read it."""
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))  # (C, 1, k, k) -> (k, k, C)


depthwise_conv = Op(
    "depthwise_conv",
    ("x", "weight", "bias"),
    output_shape,
    forward,
    backward,
    cost,
    attrs=("stride", "portable"),
    optional=1,
    never=("bias",),
)
