"""Batch norm with the statistics of the batch (train mode).

Per channel, over the M = N H W values of the batch:

    mean = sum x / M,   var = sum (x - mean)^2 / M,   inv_std = 1 / sqrt(var + eps)
    x_hat = (x - mean) inv_std,   y = gamma x_hat + beta

    gbeta  = sum gy
    ggamma = sum gy x_hat
    gx     = gamma inv_std (gy - gbeta / M - x_hat ggamma / M)

(Ioffe & Szegedy 2015, arXiv:1502.03167.) Kept: x_hat where gamma is trained or gx wanted, and
inv_std, one number a channel, where gx is wanted. Keeping x_hat rather than x saves keeping the
mean besides. The running statistics move towards the batch's by `momentum`, with the unbiased
variance sum (x - mean)^2 / (M - 1); they are the one input that forward writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, as_rows, nbytes, positions, size
from minitl.errors import ShapeError
from minitl.kernels import channels
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, expect_map, expect_vectors, keeps_array
from minitl.saved import Saved


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of x (N, H, W, C); raises ShapeError where a channel has a single value and so no variance."""
    x, gamma, beta, mean, var = shapes
    expect_map("batch_norm", x)
    expect_vectors("batch_norm", x[3], weight=gamma, bias=beta, running_mean=mean, running_var=var)
    if positions(x) < 2:
        raise ShapeError(
            op="batch_norm",
            expected="at least two values a channel to take batch statistics of",
            got=f"one: shape {x}",
            remedy="use a larger batch or resolution, or a method that freezes this norm's statistics",
        )
    return x


def forward(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    *,
    attrs: Attrs,
    needs: Needs,
    rule: str,
) -> tuple[Array, Saved]:
    """Normalise by the batch's statistics and move the running ones; keeps x_hat and inv_std as needed."""
    eps, momentum = attrs.get("eps", 1e-5), attrs.get("momentum", 0.1)
    rows, m, one = x.reshape(-1, x.shape[3]), positions(x.shape), np.ones_like(weight)
    x_hat, y = np.empty_like(x), np.empty_like(x)
    mean = channels.sums(rows) / m
    channels.affine(rows, one, (-mean).astype(x.dtype), as_rows(x_hat))
    squares = channels.dots(as_rows(x_hat), as_rows(x_hat))
    inv_std = (1.0 / np.sqrt(squares / m + eps)).astype(x.dtype)
    channels.affine(as_rows(x_hat), inv_std, np.zeros_like(bias), as_rows(x_hat))
    channels.affine(as_rows(x_hat), weight, bias, as_rows(y))
    running_mean += momentum * (mean - running_mean)
    running_var += momentum * (squares / (m - 1) - running_var)
    saved = Saved()
    if needs[0] or needs[1]:
        saved.keep("x_hat", x_hat, ("grad_input",) * needs[0] + ("grad_scale",) * needs[1])
    if needs[0]:
        saved.keep("inv_std", inv_std, ("grad_input",))
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx, ggamma and gbeta: those that `needs` asks for."""
    rows, m, dtype = as_rows(gy), positions(gy.shape), gy.dtype
    gx = None
    total = channels.sums(rows) if needs[0] or needs[2] else None
    along = channels.dots(rows, as_rows(saved["x_hat"])) if needs[0] or needs[1] else None
    if needs[0] and total is not None and along is not None:
        gx = np.empty_like(gy)
        scale = params[0] * saved["inv_std"].astype(np.float64)
        of_gy, of_x_hat, shift = (
            scale.astype(dtype),
            (-scale * along / m).astype(dtype),
            (-scale * total / m).astype(dtype),
        )
        channels.affine_sum(rows, of_gy, as_rows(saved["x_hat"]), of_x_hat, shift, as_rows(gx))
    ggamma = along.astype(dtype) if needs[1] and along is not None else None
    gbeta = total.astype(dtype) if needs[2] and total is not None else None
    return gx, ggamma, gbeta, None, None


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """7 operations a value forward; backward 1 for gbeta, 2 for ggamma, 4 for gx (and the two sums it needs)."""
    x, c = shapes[0], shapes[0][3]
    n = size(x)
    gx_flops = n * (4 + (not needs[1]) * 2 + (not needs[2])) if needs[0] else 0
    kept = []
    if needs[0] or needs[1]:
        kept.append(keeps_array("x_hat", x, dtype, ("grad_input",) * needs[0] + ("grad_scale",) * needs[1]))
    if needs[0]:
        kept.append(keeps_array("inv_std", (c,), dtype, ("grad_input",)))
    return Cost(
        output=x,
        kept=tuple(kept),
        flops=Split(7 * n, gx_flops, needs[1] * 2 * n + needs[2] * n),
        forward_workspace=0 if kept else nbytes(x, dtype),  # x_hat is made either way
    )


batch_norm = Op(
    "batch_norm",
    ("x", "weight", "bias", "running_mean", "running_var"),
    output_shape,
    forward,
    backward,
    cost,
    attrs=("eps", "momentum"),
    never=("running_mean", "running_var"),
    updates=("running_mean", "running_var"),
)
