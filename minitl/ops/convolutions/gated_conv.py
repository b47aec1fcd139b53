"""A gate and the pointwise convolution that reads it, in one: the gated map is never built.

    y_n = (gate_n x_n) W^T = x_n (W gate_n)^T        x (N, H, W, I), gate (N, 1, 1, I), W (O, I, 1, 1)

so the gate can scale the weights instead of the map. With G_n = gy_n^T x_n, of shape (O, I),

    gx_n    = gy_n (W gate_n)
    ggate_n = sum over o of W G_n
    gW      = sum over n of G_n gate_n

Kept: x for ggate and gW, the gate for gx and gW. As two ops, squeeze-and-excite's multiply and the
projection after it would keep the gated map besides. W gate_n is rounded as an array; G_n is one chain
over the sample's positions; ggate and gW are summed in float64, over o and over n, and rounded once.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, positions, size
from minitl.kernels import pointwise
from minitl.kernels.sums import in_order
from minitl.ops.convolutions.linear import pointwise_shape
from minitl.ops.kept import GRAD_INPUT, GRAD_WEIGHT, Uses, keeps, save
from minitl.ops.maps.scale import output_shape as gated_shape
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, H, W, O)."""
    x, gate, w = shapes
    gated_shape((x, gate), attrs)
    return pointwise_shape((x, w), attrs)


def uses(needs: Needs) -> Uses:
    """x for ggate and gW, the gate for gx and gW."""
    of_weight = GRAD_WEIGHT * needs[2]
    return {"x": GRAD_INPUT * needs[1] + of_weight, "gate": GRAD_INPUT * needs[0] + of_weight}


def forward(x: Array, gate: Array, weight: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y_n = x_n (W gate_n)^T; keeps what the gradients use."""
    y = np.empty((*x.shape[:-1], len(weight)), x.dtype)
    for n, factors in enumerate(gate[:, 0, 0]):
        pointwise.forward(x[n : n + 1], weight[:, :, 0, 0] * factors, None, y[n : n + 1])
    return y, save(uses(needs), x, gate)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx, ggate and gW: those that `needs` asks for, sample by sample."""
    matrix, dtype = params[0][:, :, 0, 0], gy.dtype
    gx = np.empty((*gy.shape[:-1], matrix.shape[1]), dtype) if needs[0] else None
    ggate = np.empty((len(gy), 1, 1, matrix.shape[1]), dtype) if needs[1] else None
    gw = np.empty(params[0].shape, dtype) if needs[2] else None
    total, products = np.zeros(matrix.shape), np.empty_like(matrix)
    for n in range(len(gy)):
        here = slice(n, n + 1)
        if gx is not None:
            pointwise.grad_input(gy[here], matrix * saved["gate"][n, 0, 0], gx[here])
        if needs[1] or needs[2]:
            pointwise.grad_weight(saved["x"][here], gy[here], products)
            if ggate is not None:
                ggate[n, 0, 0] = in_order(np.multiply(matrix, products, dtype=np.float64))
            if needs[2]:
                total += np.multiply(products, saved["gate"][n, 0, 0], dtype=np.float64)
    if gw is not None:
        gw[:, :, 0, 0] = total
    return gx, ggate, gw


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """M I O multiply-adds for y, for gx, and for G, which counts with gW; scaling and summing O I a sample."""
    x, _, w = shapes
    m, area, (o, i) = positions(x) * size(w), positions(x[1:]), w[:2]
    both = needs[1] or needs[2]
    macs = Split(m, needs[0] * m, both * m)
    scaling = Split(1, needs[0] + 2 * needs[1], 2 * needs[2])  # operations for each weight and sample
    matrix, doubles = nbytes(w, dtype), nbytes(w, "float64")
    back = pointwise.product_workspace(area, (o, i), dtype, False)
    grad = pointwise.grad_weight_workspace((1, *x[1:]), o, dtype)
    return Cost(
        output=(*x[:-1], o),
        kept=keeps(uses(needs), shapes, dtype, inputs=True),
        macs=macs,
        flops=2 * macs + x[0] * size(w) * scaling,
        forward_workspace=matrix + pointwise.product_workspace(area, (o, i), dtype, True),
        backward_workspace=doubles
        + matrix
        + max(needs[0] * (matrix + back), both * grad, both * doubles, needs[1] * (doubles + nbytes((i,), "float64"))),
    )


gated_conv = Op("gated_conv", ("x", "gate", "weight"), Functions(output_shape, forward, backward, cost), activations=2)
