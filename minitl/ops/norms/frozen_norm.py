"""Batch norm with frozen statistics and scale: MobileTL's inner norms (paper, "shift-only" training).

    scale = gamma / sqrt(running_var + eps),   shift = beta - running_mean scale
    y = scale x + shift

    gx    = scale gy
    gbeta = sum of gy over N, H, W

Nothing that depends on x stands in the backward, so nothing is kept, whether or not beta is
trained. The scale and the statistics cannot be trained here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.kernels import channels, elementwise
from minitl.kernels.broadcast import Broadcast
from minitl.kernels.elementwise import Down, Up
from minitl.kernels.formula import sqrt
from minitl.kernels.groups import Groups
from minitl.kernels.rules import FROZEN
from minitl.kernels.sums import in_order
from minitl.ops.expect import expect_norm, expect_numbers
from minitl.ops.norms.batch_norm import INPUTS
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, beyond
from minitl.saved import Saved


def _scale_and_shift(gamma: Any, beta: Any, mean: Any, var: Any, eps: Any) -> tuple[Any, Any]:
    scale = gamma / sqrt(var + eps)
    return scale, beta - mean * scale


SCALE_AND_SHIFT = Broadcast(_scale_and_shift, "cccci", "cc", wide=True)


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (N, H, W, C)."""
    expect_numbers("frozen_norm", attrs, eps=np.inf)
    return expect_norm("frozen_norm", INPUTS[1:], shapes)


def forward(x: Array, *params: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = scale x + shift; keeps nothing."""
    y, scale, shift = np.empty_like(x), np.empty_like(params[0]), np.empty_like(params[0])
    SCALE_AND_SHIFT.into((scale, shift), *params, attrs.get("eps", 1e-5))
    elementwise.up(x, y, Up(FROZEN, scale=scale, shift=shift))
    return y, Saved()


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = scale gy and gbeta = sum gy: those that `needs` asks for."""
    if not needs[0]:
        return None, None, channels.sums(gy).astype(gy.dtype) if needs[2] else None, None, None
    scale, shift = np.empty_like(params[0]), np.empty_like(params[0])
    SCALE_AND_SHIFT.into((scale, shift), *params, attrs.get("eps", 1e-5))
    gx, sums = np.empty_like(gy), np.empty((len(Groups(gy.shape)), gy.shape[3]))
    elementwise.down(gy, gx, Down(FROZEN, scale=scale, sums=sums))
    return gx, None, in_order(sums).astype(gy.dtype) if needs[2] else None, None, None


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """2 operations per value forward, 1 for gx, 1 for gbeta."""
    x, n = shapes[0], size(shapes[0])
    gx, gb = needs[0] * nbytes(x, dtype), needs[2] * nbytes(x[3:], dtype)
    two, making = 2 * nbytes(x[3:], dtype), SCALE_AND_SHIFT.workspace(x[3], dtype)
    total = nbytes(x[3:], "float64")
    sums = len(Groups(x)) * total  # one for each group of samples and channel
    passed = max(two + making, gx + two + sums + needs[2] * (total + gb)) if needs[0] else sums + total
    return Cost(
        output=x,
        flops=Split(2 * n, needs[0] * n, needs[2] * n),
        forward_workspace=two + making,
        backward_workspace=beyond(gx + gb, passed),
    )


frozen_norm = Op(
    "frozen_norm", INPUTS, Functions(output_shape, forward, backward, cost),
    attrs=("eps",), never=("weight", *INPUTS[3:]),
)  # fmt: skip
