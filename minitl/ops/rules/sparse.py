"""A product whose weight keeps N of every M: pruned along inputs forward, along outputs besides for the input gradient.

    y = x W_R^T + b      W_R: of M inputs in a row those N of largest magnitude, for each output
    gx = gy W_RC         W_RC: of W_R, of M outputs in a row again N, for each input
    gW = mask_R gy^T x   zero where W_R is: what is pruned stays so

(SLoPe: Mozaffari et al., ICLR 2025, arXiv:2405.16325.) gx is not the derivative of y. Ties go by index. x is kept
dense: this saves no byte of what is kept. The source stores W_R and W_RC^T compressed and fixes both masks when
training begins; here W is dense with zeros, and W_RC is chosen anew from it each time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.errors import ValueRangeError
from minitl.ops.convolutions.linear import linear, pointwise_conv
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, beyond
from minitl.ops.room import Room, gradient_bytes, made, room_bytes
from minitl.saved import Saved

RULE = "double_pruned"
Pattern = tuple[int, int]  # N, M


def output_shape(op: Op, shapes: Shapes, attrs: Attrs) -> Shape:
    """The product's; the pattern must fit the weight."""
    y = op.output_shape(shapes, {})
    expect_pattern(op.name, shapes[1], attrs["pattern"])
    return y


def forward(
    op: Op, x: Array, weight: Array, *bias: Array, attrs: Attrs, needs: Needs, rule: str
) -> tuple[Array, Saved]:
    """y from W_R; keeps x when the weight is trained."""
    pruned = weight * largest(weight, attrs["pattern"], 1)
    return op.forward(x, pruned, *bias, needs=needs)


def backward(op: Op, saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx from W_RC, gW on the mask of W_R, gb."""
    mask = largest(params[0], attrs["pattern"], 1)
    both = params[0] * mask
    both *= largest(both, attrs["pattern"], 0)
    gx, gw, *gb = op.backward(saved, gy, needs=needs, params=(both, *params[1:]))
    if gw is not None:
        gw *= mask
    return (gx, gw, *gb)


def cost(op: Op, shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The dense product's, which is what runs; in passing the pruned weight, its magnitudes and its masks."""
    exact, weight, mask = op.cost(shapes, dtype, needs=needs), nbytes(shapes[1], dtype), size(shapes[1])
    choosing = room_bytes(room(shapes[1], dtype, attrs["pattern"]))
    y = nbytes(exact.output, dtype)
    left = gradient_bytes(shapes, dtype, needs)
    return replace(
        exact,
        forward_workspace=beyond(y, mask + choosing, mask + weight, weight + y + exact.forward_workspace),
        backward_workspace=beyond(
            left, mask + weight + mask + choosing, mask + weight + left + exact.backward_workspace
        ),
    )


def expect_pattern(op: str, weight: Shape, pattern: Pattern, layer: str = "") -> None:
    """Raise ValueRangeError unless 1 <= N <= M, and M divides inputs and outputs."""
    n, m = pattern
    if not 1 <= n <= m or weight[0] % m or weight[1] % m:
        expected = f"N of M with M dividing the {weight[1]} inputs and {weight[0]} outputs"
        raise ValueRangeError(op=op, layer=layer, expected=expected, got=f"{n} of {m}")


def largest(weight: Array, pattern: Pattern, axis: int) -> Array:
    """Whether each weight is among the N of largest magnitude of its M neighbours along an axis (0 or 1)."""
    (n, m), mask = pattern, np.empty(weight.shape, bool)
    sizes, before, ahead = made(room(weight.shape, weight.dtype.name, pattern))
    rows, columns = weight.shape[:2]
    grouped = (rows, columns // m, m) if axis == 1 else (rows // m, m, columns)
    np.abs(weight, out=sizes)
    place = np.moveaxis(sizes.reshape(grouped), 1 + (axis == 1), 0)
    chosen = np.moveaxis(mask.reshape(grouped), 1 + (axis == 1), 0)
    before, ahead = before.reshape(place[0].shape), ahead.reshape(place[0].shape)
    for i in range(m):
        before[...] = 0
        for j in range(m):
            if j != i:
                (np.greater_equal if j < i else np.greater)(place[j], place[i], out=ahead)
                before += ahead
        np.less(before, n, out=chosen[i])
    return mask


def room(weight: Shape, dtype: str, pattern: Pattern) -> Room:
    """What `largest` takes in passing: magnitudes, and of each M-th weight how many are ahead, and whether one is."""
    groups, count = (size(weight) // pattern[1],), np.min_scalar_type(pattern[1])
    return [(weight, dtype), (groups, count.name), (groups, "bool")]


def _sparse(op: Op) -> Op:
    return replace(
        op,
        functions=Functions(partial(output_shape, op), partial(forward, op), partial(backward, op), partial(cost, op)),
        attrs=("pattern",),
        rules=(RULE,),
        approximate=(RULE,),
    )


SPARSE = {op.name: _sparse(op) for op in (pointwise_conv, linear)}
