"""A gate and the pointwise convolution that reads it, in one: the gated map is never built.

    y_n = (gate_n x_n) W^T = x_n (W gate_n)^T        x (N, H, W, I), gate (N, 1, 1, I), W (O, I, 1, 1)

so the gate can scale the weights instead of the map. With G_n = gy_n^T x_n, of shape (O, I),

    gx_n    = gy_n (W gate_n)
    ggate_n = sum over o of W G_n
    gW      = sum over n of G_n gate_n

Kept: x for ggate and gW, the gate for gx and gW. As two ops, squeeze-and-excite's multiply and the
projection after it would keep the gated map besides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, as_rows, nbytes, positions, size
from minitl.kernels import channels
from minitl.kernels.matmul import matmul, workspace
from minitl.ops.linear import pointwise_shape
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, beyond, keeps_input
from minitl.ops.scale import output_shape as gated_shape
from minitl.saved import Saved


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """(N, H, W, O)."""
    x, gate, w = shapes
    gated_shape((x, gate), attrs)
    return pointwise_shape((x, w), attrs)


def forward(x: Array, gate: Array, weight: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y_n = x_n (W gate_n)^T; keeps x and the gate as the gradients need them."""
    y = np.empty((*x.shape[:-1], len(weight)), x.dtype)
    for image, factors, out in zip(x, gate, y, strict=True):
        gated = weight[:, :, 0, 0] * factors[0, 0]
        matmul(as_rows(image), gated.T, as_rows(out), portable=attrs.get("portable", False))
        del gated
    saved = Saved()
    if needs[1] or needs[2]:
        saved.keep("x", x, ("grad_input",) * needs[1] + ("grad_weight",) * needs[2])
    if needs[0] or needs[2]:
        saved.keep("gate", gate, ("grad_input",) * needs[0] + ("grad_weight",) * needs[2])
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx, ggate and gW: those that `needs` asks for, sample by sample."""
    matrix, portable = params[0][:, :, 0, 0], attrs.get("portable", False)
    gx = np.empty((*gy.shape[:-1], matrix.shape[1]), gy.dtype) if needs[0] else None
    ggate = np.empty((len(gy), 1, 1, matrix.shape[1]), gy.dtype) if needs[1] else None
    gw = np.zeros(params[0].shape, gy.dtype) if needs[2] else None
    products = np.empty_like(matrix) if needs[1] or needs[2] else None
    for n, slopes in enumerate(gy):
        if gx is not None:
            matmul(as_rows(slopes), matrix * saved["gate"][n, 0, 0], as_rows(gx[n]), portable=portable)
        if products is not None:
            matmul(as_rows(slopes).T, as_rows(saved["x"][n]), products, portable=portable)
            if ggate is not None:
                ggate[n, 0, 0] = channels.dots(matrix, products)
            if gw is not None:
                products *= saved["gate"][n, 0, 0]
                gw[:, :, 0, 0] += products
    return gx, ggate, gw


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """M I O multiply-adds for y, for gx, and for G, which counts with gW; scaling and summing O I a sample."""
    x, gate, w = shapes
    m, n, weights = positions(x) * size(w), x[0], size(w)
    both = needs[1] or needs[2]
    kept = []
    if both:
        kept.append(keeps_input("x", 0, x, dtype, ("grad_input",) * needs[1] + ("grad_weight",) * needs[2]))
    if needs[0] or needs[2]:
        kept.append(keeps_input("gate", 1, gate, dtype, ("grad_input",) * needs[0] + ("grad_weight",) * needs[2]))
    macs = Split(m, needs[0] * m, both * m)
    matrix, gx = nbytes(w, dtype), needs[0] * nbytes(x, dtype)
    ggate, gw = needs[1] * nbytes(gate, dtype), needs[2] * matrix
    portable = attrs.get("portable", False)
    rows, i, o = positions(x) // n, x[3], w[0]
    return Cost(
        output=(*x[:-1], o),
        kept=tuple(kept),
        macs=macs,
        flops=Split(
            2 * m + n * weights,
            2 * macs.grad_input + (needs[0] + 2 * needs[1]) * n * weights,
            2 * macs.grad_weight + 2 * needs[2] * n * weights,
        ),
        forward_workspace=matrix + workspace((rows, i), (i, o), portable=portable),
        backward_workspace=beyond(
            gx + ggate + gw,
            needs[0] * (gx + ggate + gw + both * matrix + matrix + workspace((rows, o), (o, i), portable=portable)),
            both * (gx + ggate + gw + matrix + workspace((o, rows), (rows, i), portable=portable)),
        ),
    )


gated_conv = Op(
    "gated_conv",
    ("x", "gate", "weight"),
    output_shape,
    forward,
    backward,
    cost,
    attrs=("portable",),
    activations=2,
)
