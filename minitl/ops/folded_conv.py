"""A frozen convolution and the frozen norm after it, as one convolution.

    scale = gamma / sqrt(running_var + eps),   shift = beta - running_mean scale
    y = conv(x, scale W) + shift

The norm costs nothing but a scaled copy of the weights. This is how layers below the lowest
trained one run: there is no gradient to pass on, so there is no backward and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minitl.arrays import Array, Shape, nbytes
from minitl.errors import unknown
from minitl.ops.conv import conv
from minitl.ops.depthwise_conv import depthwise_conv
from minitl.ops.frozen_norm import scale_and_shift
from minitl.ops.linear import pointwise_conv
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, beyond, expect_vectors
from minitl.saved import Saved

KINDS = {op.name: op for op in (conv, depthwise_conv, pointwise_conv)}


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of the convolution named by the attribute `kind`."""
    x, w, gamma, beta, mean, var = shapes
    if attrs.get("kind") not in KINDS:
        raise unknown("kind", attrs.get("kind"), KINDS, op="folded_conv")
    expect_vectors("folded_conv", w[0], weight=gamma, bias=beta, running_mean=mean, running_var=var)
    return _inner(attrs).output_shape((x, w), attrs)


def forward(x: Array, weight: Array, *norm: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = conv(x, scale W) + shift; keeps nothing."""
    scale, shift = scale_and_shift(norm, attrs.get("eps", 1e-5))
    folded = (weight * scale[:, None, None, None]).astype(x.dtype)
    inner = _inner(attrs)
    return inner.forward(x, folded, shift.astype(x.dtype), attrs=_conv_attrs(attrs, inner), needs=(False,) * 3)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """There is none to compute: `Op.forward` has refused any need for a gradient."""
    return (None,) * len(needs)


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """That of the convolution with a bias, and the folded weights as workspace."""
    x, w, gamma, *_ = shapes
    inner = _inner(attrs)
    own = inner.cost((x, w, gamma), dtype, attrs=_conv_attrs(attrs, inner), needs=(False,) * 3)
    folded, product = nbytes(w, dtype), nbytes(w, "float64")
    left = nbytes(own.output, dtype)
    moments = folded + product, folded + own.forward_workspace + left
    return replace(own, forward_workspace=beyond(left, *moments))


def _inner(attrs: Attrs) -> Op:
    return KINDS[attrs["kind"]]


def _conv_attrs(attrs: Attrs, inner: Op) -> Attrs:
    return {name: value for name, value in attrs.items() if name in inner.attrs}


folded_conv = Op(
    "folded_conv",
    ("x", "weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"),
    output_shape,
    forward,
    backward,
    cost,
    attrs=("kind", "stride", "portable", "eps"),
    never=("x", "weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"),
)
