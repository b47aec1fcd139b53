"""Batch norm with the statistics of the batch (train mode).

Per channel, over the M = N H W values of the batch:

    mean = sum x / M,   var = sum (x - mean)^2 / M,   inv_std = 1 / sqrt(var + eps)
    x_hat = (x - mean) inv_std,   y = gamma x_hat + beta

    gbeta  = sum gy
    ggamma = sum gy x_hat
    gx     = gamma inv_std (gy - gbeta / M - x_hat ggamma / M)

(Ioffe & Szegedy 2015, arXiv:1502.03167.) Kept: x_hat where gamma is trained or gx wanted, and
inv_std, one number per channel, where gx is wanted. Keeping x_hat rather than x saves keeping the
mean besides. The running statistics move towards the batch's by `momentum`, with the unbiased
variance sum (x - mean)^2 / (M - 1); they are the one input that forward writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.arrays import Array, Shape, nbytes, positions, size
from minitl.errors import ShapeError
from minitl.kernels import channels, elementwise
from minitl.kernels.broadcast import Broadcast
from minitl.kernels.elementwise import Down, Up
from minitl.kernels.formula import sqrt
from minitl.kernels.groups import Groups
from minitl.kernels.rules import BATCH
from minitl.kernels.sums import in_order
from minitl.ops.op import (
    Attrs,
    Cost,
    Functions,
    Gradients,
    Needs,
    Op,
    Shapes,
    Split,
    expect_map,
    expect_vectors,
    keeps_array,
)
from minitl.saved import Kept, Saved


def _statistics(
    running_mean: Any, running_var: Any, mean: Any, squares: Any, momentum: Any, count: Any, eps: Any
) -> tuple[Any, ...]:
    """The running statistics, the batch's mean and inv_std, from mean and sum of centred squares."""
    running_mean = running_mean + momentum * (mean - running_mean)
    running_var = running_var + momentum * (squares / (count - 1) - running_var)
    return running_mean, running_var, mean, 1 / sqrt(squares / count + eps)


def _factors(gamma: Any, inv_std: Any, gbeta: Any, ggamma: Any, count: Any) -> tuple[Any, ...]:
    """(a, b, c) of gx = (a gy + b x_hat) + c."""
    scale = gamma * inv_std
    return scale, -scale * ggamma / count, -scale * gbeta / count


def _combine(gy: Any, x_hat: Any, a: Any, b: Any, c: Any) -> Any:
    return (a * gy + b * x_hat) + c


STATISTICS = Broadcast(_statistics, "ccddiii", "cccc", wide=True)
FACTORS = Broadcast(_factors, "ccddi", "ccc", wide=True)
COMBINE = Broadcast(_combine, "mmccc", "m")


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (N, H, W, C); raises ShapeError where a channel has a single value and so no variance."""
    x, gamma, beta, mean, var = shapes
    expect_map("batch_norm", x)
    expect_vectors("batch_norm", x[3], weight=gamma, bias=beta, running_mean=mean, running_var=var)
    if positions(x) < 2:
        raise ShapeError(
            op="batch_norm",
            expected="at least two values per channel to take batch statistics of",
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
    x_hat, y = np.empty_like(x), np.empty_like(x)
    mean, inv_std = np.empty_like(weight), np.empty_like(weight)
    running = running_mean, running_var
    STATISTICS.into((*running, mean, inv_std), *running, *channels.moments(x), *settings(attrs, x.shape))
    elementwise.up(x, y, Up(BATCH, scale=weight, shift=bias, mean=mean, inv_std=inv_std, x_hat=x_hat))
    return y, keep_normalised(x_hat, inv_std, needs)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx, ggamma and gbeta: those that `needs` asks for."""
    count = (len(Groups(gy.shape)), gy.shape[3])
    if not needs[0]:
        ggamma = channels.dots(gy, saved["x_hat"]).astype(gy.dtype) if needs[1] else None
        return None, ggamma, channels.sums(gy).astype(gy.dtype) if needs[2] else None, None, None
    sums, dots, gx = np.empty(count), np.empty(count), np.empty_like(gy)
    elementwise.down(gy, gx, Down(BATCH, x_hat=saved["x_hat"], sums=sums, dots=dots))
    total, along = in_order(sums), in_order(dots)
    factors = [np.empty_like(params[0]) for _ in range(3)]
    FACTORS.into(factors, params[0], saved["inv_std"], total, along, positions(gy.shape))
    COMBINE.over(gx, gy, saved["x_hat"], *factors)
    return (
        gx,
        along.astype(gy.dtype) if needs[1] else None,
        total.astype(gy.dtype) if needs[2] else None,
        None,
        None,
    )


def settings(attrs: Attrs, x: Shape) -> tuple[float, int, float]:
    """Momentum, how many values a channel has, and eps."""
    return attrs.get("momentum", 0.1), positions(x), attrs.get("eps", 1e-5)


def keep_normalised(x_hat: Array, inv_std: Array, needs: Needs) -> Saved:
    """x_hat for gx and the scale's gradient, inv_std for gx."""
    saved = Saved()
    if needs[0] or needs[1]:
        saved.keep("x_hat", x_hat, ("grad_input",) * needs[0] + ("grad_scale",) * needs[1])
    if needs[0]:
        saved.keep("inv_std", inv_std, ("grad_input",))
    return saved


def keeps_normalised(x_hat: Shape, inv_std: Shape, dtype: str, needs: Needs) -> tuple[Kept, ...]:
    """What that keeps, of these shapes."""
    normal = keeps_array("x_hat", x_hat, dtype, ("grad_input",) * needs[0] + ("grad_scale",) * needs[1])
    deviation = keeps_array("inv_std", inv_std, dtype, ("grad_input",))
    return (normal,) * (needs[0] or needs[1]) + (deviation,) * needs[0]


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """7 operations per value forward; backward 1 for gbeta, 2 for ggamma, 4 for gx (and the two sums it needs)."""
    x, c = shapes[0], shapes[0][3]
    n = size(x)
    gx_flops = n * (4 + (not needs[1]) * 2 + (not needs[2])) if needs[0] else 0
    kept = keeps_normalised(x, (c,), dtype, needs)
    return Cost(
        output=x,
        kept=kept,
        flops=Split(7 * n, gx_flops, needs[1] * 2 * n + needs[2] * n),
        forward_workspace=0 if kept else nbytes(x, dtype),  # x_hat is made either way
    )


batch_norm = Op(
    "batch_norm",
    ("x", "weight", "bias", "running_mean", "running_var"),
    Functions(output_shape, forward, backward, cost),
    attrs=("eps", "momentum"),
    never=("running_mean", "running_var"),
    updates=("running_mean", "running_var"),
)
