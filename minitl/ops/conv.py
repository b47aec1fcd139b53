"""Dense k x k convolution: the stem of a network.

    y[n, i, j, o] = b[o] + sum over (c, u, v) of W[o, c, u, v] x[n, s i + u - p, s j + v - p, c]

with x zero outside, p = (k - 1) / 2 and stride s (1 or 2). Both gradients are sums over the same
pairs (y position, tap): gx collects W gy, gW collects x gy and so needs x; gb = sum of gy.
y and gW are matrix products of BLAS on gathered patches, or ordered loops with the attribute
`portable`; gx, which a stem has no use for, is always the loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, as_rows, nbytes, size
from minitl.kernels import channels, conv_ordered
from minitl.kernels import conv as conv_fast
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, beyond, keeps_input
from minitl.ops.window import conv_shape
from minitl.saved import Saved


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """(N, ceil(H / s), ceil(W / s), O) for x (N, H, W, C), weight (O, C, k, k), optional bias (O,)."""
    return conv_shape("conv", shapes, attrs, None)


def forward(x: Array, weight: Array, *bias: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The formula above; keeps x when the weight is trained."""
    y = np.empty(output_shape((x.shape, weight.shape), attrs), x.dtype)
    kernel = conv_ordered if attrs.get("portable") else conv_fast
    kernel.forward(x, taps_first(weight), attrs.get("stride", 1), y)
    if bias:
        y += bias[0]
    saved = Saved()
    if needs[1]:
        saved.keep("x", x, ("grad_weight",))
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx, gW and gb: those that `needs` asks for."""
    weight, stride = params[0], attrs.get("stride", 1)
    kernel = conv_ordered if attrs.get("portable") else conv_fast
    gx = gw = gb = None
    if needs[0]:
        gx = np.empty(saved.input_shape, gy.dtype)
        conv_ordered.grad_input(gy, taps_first(weight), stride, gx)
    if needs[1]:
        taps = np.empty((*weight.shape[2:], weight.shape[1], weight.shape[0]), gy.dtype)
        kernel.grad_weight(saved["x"], gy, stride, taps)
        gw = np.ascontiguousarray(taps.transpose(3, 2, 0, 1))
        del taps
    if len(needs) > 2 and needs[2]:
        gb = channels.sums(as_rows(gy)).astype(gy.dtype)
    return (gx, gw, gb)[: len(needs)]


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """N Ho Wo k k C O multiply-adds (taps in the padding included) for each of y, gx and gW."""
    x, w, *bias = shapes
    y = output_shape(shapes, attrs)
    m, bias_grad = size(y) * size(w[1:]), len(needs) > 2 and needs[2]
    macs = Split(m, needs[0] * m, needs[1] * m)
    taps, gx = nbytes(w, dtype), needs[0] * nbytes(x, dtype)
    gw = needs[1] * taps
    kernel = conv_ordered if attrs.get("portable") else conv_fast
    sizes = y, (*w[2:], w[1], w[0]), np.dtype(dtype).itemsize
    return Cost(
        output=y,
        kept=(keeps_input("x", 0, x, dtype, ("grad_weight",)),) if needs[1] else (),
        macs=macs,
        flops=Split(2 * m + len(bias) * size(y), 2 * macs.grad_input, 2 * macs.grad_weight + bias_grad * size(y)),
        forward_workspace=taps + kernel.workspace(*sizes),
        backward_workspace=beyond(
            gx + gw,
            needs[0] * (gx + taps),
            needs[1] * (gx + taps + max(gw, kernel.grad_weight_workspace(*sizes))),
        ),
    )


def taps_first(weight: Array) -> Array:
    """The weight as the kernels read it."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))  # (O, C, k, k) -> (k, k, C, O)


conv = Op(
    "conv", ("x", "weight", "bias"), output_shape, forward, backward, cost, attrs=("stride", "portable"), optional=1
)
