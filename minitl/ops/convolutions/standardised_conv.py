"""A grouped convolution whose filters are standardised each time they are used (weight standardisation).

Qiao et al. 2019, arXiv:1903.10520, as TinyTL's source does it. For each filter w of n numbers, with mean m,

    v = w - m      d = sqrt(sum v^2 / (n - 1)) + eps      w' = v / d      y = conv(x, w')

    gv = gw' / d - v sum(gw' v) / (d^2 (n - 1) (d - eps))      gw = gv - mean(gv)

w' is a function of w alone, so backward makes it again: kept is what the convolution keeps, its x. A
filter of equal numbers has d = eps, and the second term of gv is 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.errors import ShapeError
from minitl.ops.convolutions.grouped_conv import grouped_conv
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, beyond
from minitl.saved import Saved

EPS = 1e-5


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of the grouped convolution; a filter of one number has no deviation."""
    if size(shapes[1][1:]) < 2:
        expected, got = "at least two numbers per filter", f"weight {shapes[1]}"
        raise ShapeError(op="standardised_conv", expected=expected, got=got)
    return grouped_conv.output_shape(shapes, attrs)


def forward(x: Array, weight: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = conv(x, w'); keeps x when the weight is trained."""
    standard, _ = standardise(weight)
    return grouped_conv.forward(x, standard, attrs=attrs, needs=needs)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """The convolution's gradients with w', that of w' carried on to w."""
    standard, deviation = standardise(params[0])
    gx, gw = grouped_conv.backward(saved, gy, attrs=attrs, needs=needs, params=(standard,))
    return gx, None if gw is None else _through(gw, standard, deviation)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """That of the convolution; 5 operations per weight for w', 7 more for gw; in passing w' and some like it."""
    one, w = grouped_conv.cost(shapes, dtype, attrs=attrs, needs=needs), shapes[1]
    n, room, y, gx = size(w), nbytes(w, dtype), nbytes(one.output, dtype), needs[0] * nbytes(shapes[0], dtype)
    left = gx + needs[1] * room
    return replace(
        one,
        flops=one.flops + Split(5 * n, needs[0] * 5 * n, needs[1] * 7 * n),
        forward_workspace=beyond(y, 2 * room, room + y + one.forward_workspace),
        backward_workspace=beyond(left, 2 * room, room + left + one.backward_workspace, needs[1] * (gx + 4 * room)),
    )


def standardise(weight: Array) -> tuple[Array, Array]:
    """w' and, per filter, the deviation d - eps, (O, 1)."""
    rows = weight.reshape(len(weight), -1)
    v = rows - rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt((v * v).sum(axis=1, keepdims=True) / (rows.shape[1] - 1))
    v /= deviation + EPS
    return v.reshape(weight.shape), deviation


def _through(gradient: Array, standard: Array, deviation: Array) -> Array:
    """gw from gw', w' = v / d and d - eps."""
    g, s = gradient.reshape(len(gradient), -1), standard.reshape(len(standard), -1)
    d = deviation + EPS
    along = (g * s).sum(axis=1, keepdims=True) * d / np.maximum(deviation * (g.shape[1] - 1), np.finfo(g.dtype).tiny)
    gv = g - np.where(deviation > 0, along, 0) * s
    gv /= d
    gv -= gv.mean(axis=1, keepdims=True)
    gw: Array = gv.reshape(gradient.shape)
    return gw


standardised_conv = Op(
    "standardised_conv", ("x", "weight"), Functions(output_shape, forward, backward, cost),
    attrs=("groups", "stride", "padding"),
)  # fmt: skip
