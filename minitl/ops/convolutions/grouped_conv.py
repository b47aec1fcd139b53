"""Grouped convolution: G dense convolutions side by side, each from its share of the inputs to that of the outputs.

x (N, H, W, C), weight (O, C / G, k, k): group g reads channels g C/G ... and writes g O/G ...; each is
`conv`, and so are its gradients. gW needs x, which is kept whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.ops.convolutions.conv import conv
from minitl.ops.convolutions.products import saved_input
from minitl.ops.convolutions.window import conv_shape
from minitl.ops.expect import expect_groups, expect_map
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, keeps_input
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, ceil(H / s), ceil(W / s), O); the attribute `groups` must divide C and O."""
    x, w = shapes
    expect_map("grouped_conv", x)
    groups = expect_groups("grouped_conv", attrs, x[3], *w[:1])
    return conv_shape("grouped_conv", ((*x[:3], x[3] // groups), w), attrs)


def forward(x: Array, weight: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """Each group's convolution; keeps x when the weight is trained."""
    y = np.empty(output_shape((x.shape, weight.shape), attrs), x.dtype)
    for into, out in groups_of(x.shape[3], len(weight), attrs):
        y[..., out], _ = conv.forward(x[..., into], weight[out], attrs=conv.own(attrs), needs=(False, False))
    return y, saved_input(x.shape, x if needs[1] else None)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx and gW of each group: those that `needs` asks for."""
    (weight,) = params
    gx = np.empty(saved.input_shape, gy.dtype) if needs[0] else None
    gw = np.empty(weight.shape, gy.dtype) if needs[1] else None
    for into, out in groups_of(saved.input_shape[3], len(weight), attrs):
        x = np.ascontiguousarray(saved["x"][..., into]) if needs[1] else None
        part = saved_input((*saved.input_shape[:3], into.stop - into.start), x)
        of_x, of_w = conv.backward(part, gy[..., out], attrs=conv.own(attrs), needs=needs, params=(weight[out],))
        if gx is not None:
            gx[..., into] = of_x
        if gw is not None:
            gw[out] = of_w
        del x, part, of_x, of_w
    return gx, gw


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """G times a group's work; in passing one group's x, y or gradients, and what `conv` holds."""
    (x, w), groups = shapes, attrs.get("groups", 1)
    part_x, part_w = (*x[:3], x[3] // groups), (w[0] // groups, *w[1:])
    one = conv.cost((part_x, part_w), dtype, attrs=conv.own(attrs), needs=needs)
    copied = nbytes(part_x, dtype) * (groups > 1)
    y, gy = nbytes(one.output, dtype), nbytes(one.output, dtype) * (groups > 1)
    gradients = needs[0] * nbytes(part_x, dtype) + needs[1] * nbytes(part_w, dtype)
    return Cost(
        output=(*one.output[:3], w[0]),
        kept=(keeps_input("x", 0, x, dtype, GRAD_WEIGHT),) * needs[1],
        macs=groups * one.macs,
        flops=groups * one.flops,
        forward_workspace=copied + y + one.forward_workspace,
        backward_workspace=needs[1] * copied + gy + gradients + one.backward_workspace,
    )


def groups_of(inputs: int, outputs: int, attrs: Attrs) -> Iterator[tuple[slice, slice]]:
    """The channels each group reads, and those it writes."""
    groups = attrs.get("groups", 1)
    wide, tall = inputs // groups, outputs // groups
    return ((slice(g * wide, (g + 1) * wide), slice(g * tall, (g + 1) * tall)) for g in range(groups))


grouped_conv = Op(
    "grouped_conv", ("x", "weight"), Functions(output_shape, forward, backward, cost),
    attrs=("groups", "stride", "padding"),
)  # fmt: skip
