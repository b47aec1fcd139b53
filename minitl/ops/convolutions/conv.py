"""Dense k x k convolution: the stem of a network.

    y[n, i, j, o] = b[o] + sum over (c, u, v) of W[o, c, u, v] x[n, s i + u - p, s j + v - p, c]

with x zero outside, p = (k - 1) / 2 or the padding given, and stride s (1 or 2). Both gradients are sums over the same
pairs (y position, tap): gx collects W gy, gW collects x gy and so needs x; gb = sum of gy.
The sums, as plain loops and as kernels, stand in `kernels/dense.py`.

With the attribute `normalisation`, (mean, std), x is images as a camera gives them, uint8, and the sums are of the
numbers that they stand for (`minitl.pixels`). What is kept is the uint8 image; its numbers exist for a sample, or a
group of samples, at a time. It has no gradient.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from minitl.arrays import Array, Shape, itemsize, nbytes, size
from minitl.errors import RuleError
from minitl.kernels import dense
from minitl.kernels.groups import Groups, group_size
from minitl.ops.convolutions.products import grad_bias, products_cost, saved_input
from minitl.ops.convolutions.window import conv_shape, window
from minitl.ops.op import NORMALISATION, Attrs, Cost, Functions, Gradients, Needs, Op, Shapes
from minitl.pixels import PIXELS, Normalisation, normalise
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, ceil(H / s), ceil(W / s), O) for x (N, H, W, C), weight (O, C, k, k), optional bias (O,)."""
    return conv_shape("conv", shapes, attrs)


def forward(x: Array, weight: Array, *bias: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The formula above; keeps x when the weight is trained."""
    y = np.empty(output_shape((x.shape, weight.shape), attrs), weight.dtype)
    at = window("conv", x.shape, y.shape, weight.shape[2], attrs)
    if NORMALISATION in attrs:
        for n in range(len(x)):
            dense.forward(_numbers(x[n : n + 1], attrs, y), weight, bias[0] if bias else None, at, y[n : n + 1])
    else:
        dense.forward(x, weight, bias[0] if bias else None, at, y)
    return y, saved_input(x.shape, x if needs[1] else None)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx, gW and gb: those that `needs` asks for."""
    weight, gx, gw = params[0], None, None
    at = window("conv", saved.input_shape, gy.shape, weight.shape[2], attrs)
    if needs[0]:
        gx = np.empty(saved.input_shape, gy.dtype)
        dense.grad_input(gy, weight, at, gx)
    if needs[1]:
        gw = np.empty(weight.shape, gy.dtype)
        dense.grad_weight(
            saved["x"], gy, at, gw, partial(_numbers, attrs=attrs, like=gy) if NORMALISATION in attrs else None
        )
    return (gx, gw, grad_bias(gy, needs))[: len(needs)]


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """N Ho Wo k k C O multiply-adds (taps in the padding included) for each of y, gx and gW."""
    (x, w), y, pixels = shapes[:2], output_shape(shapes, attrs), NORMALISATION in attrs
    if pixels and needs[0]:
        raise RuleError("has no gradient for pixels", op="conv", remedy="give it the images as numbers")
    one, group = (pixels * nbytes((n, *x[1:]), dtype) for n in (1, min(x[0], group_size(y))))  # in numbers
    taps, chains = nbytes(w, dtype) * (w[2] > 1), nbytes((len(Groups(y)), *w), dtype)  # a 1x1 weight is in order
    return products_cost(
        shapes, y, size(y) * size(w[1:]), dtype, needs,
        forward=one + dense.panels_size(w, dtype) * itemsize(dtype),
        grad_input=taps,
        grad_weight=chains + max(group, nbytes(w, "float64")),
        kept=PIXELS if pixels else dtype,
    )  # fmt: skip


def _numbers(x: Array, attrs: Attrs, like: Array) -> Array:
    return normalise(x, Normalisation(*attrs[NORMALISATION]), like.dtype.name)


conv = Op(
    "conv", ("x", "weight", "bias"), Functions(output_shape, forward, backward, cost),
    attrs=("stride", "padding", NORMALISATION), optional=1,
)  # fmt: skip
