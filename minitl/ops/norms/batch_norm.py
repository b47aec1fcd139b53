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
from minitl.ops.expect import expect_norm, expect_numbers
from minitl.ops.kept import GRAD_INPUT, Uses, keeps, save
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, beyond
from minitl.saved import Saved


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


INPUTS = ("x", "weight", "bias", "running_mean", "running_var")
STATISTICS = Broadcast(_statistics, "ccddiii", "cccc", wide=True)
FACTORS = Broadcast(_factors, "ccddi", "ccc", wide=True)
COMBINE = Broadcast(_combine, "mmccc", "m")


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (N, H, W, C); raises ShapeError where a channel has a single value and so no variance."""
    x = expect_norm("batch_norm", INPUTS[1:], shapes)
    expect_numbers("batch_norm", attrs, eps=np.inf, momentum=1)
    if positions(x) < 2:
        expected = "at least two values per channel to take batch statistics of"
        remedy = "use a larger batch or resolution, or a method that freezes this norm's statistics"
        raise ShapeError(op="batch_norm", expected=expected, got=f"one: shape {x}", remedy=remedy)
    return x


def uses(needs: Needs) -> Uses:
    """x_hat for gx and the scale's gradient, inv_std for gx."""
    return {"x_hat": GRAD_INPUT * needs[0] + ("grad_scale",) * needs[1], "inv_std": GRAD_INPUT * needs[0]}


def forward(
    x: Array, weight: Array, bias: Array, *running: Array, attrs: Attrs, needs: Needs, rule: str
) -> tuple[Array, Saved]:
    """Normalise by the batch's statistics and move the running ones; keeps x_hat and inv_std as needed."""
    x_hat, y = np.empty_like(x), np.empty_like(x)
    mean, inv_std = np.empty_like(weight), np.empty_like(weight)
    STATISTICS.into((*running, mean, inv_std), *running, *channels.moments(x), *settings(attrs, x.shape))
    elementwise.up(x, y, Up(BATCH, scale=weight, shift=bias, mean=mean, inv_std=inv_std, x_hat=x_hat))
    return y, save(uses(needs), x_hat, inv_std)


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
    ggamma, gbeta = (g.astype(gy.dtype) if need else None for g, need in zip((along, total), needs[1:3], strict=True))
    return gx, ggamma, gbeta, None, None


def settings(attrs: Attrs, x: Shape) -> tuple[float, int, float]:
    """Momentum, how many values a channel has, and eps."""
    return attrs.get("momentum", 0.1), positions(x), attrs.get("eps", 1e-5)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """7 operations per value forward; backward 1 for gbeta, 2 for ggamma, 4 for gx (and the two sums it needs)."""
    x, n = shapes[0], size(shapes[0])
    kept = keeps(uses(needs), (x, x[3:]), dtype, inputs=False)
    total, vector = nbytes(x[3:], "float64"), nbytes(x[3:], dtype)
    sums = len(Groups(x)) * total  # one for each group of samples and channel
    gx, ggamma, gbeta = needs[0] * nbytes(x, dtype), needs[1] * vector, needs[2] * vector
    passed = ggamma + sums + total
    if needs[0]:
        passed = gx + 2 * (sums + total) + 3 * vector + FACTORS.workspace(x[3], dtype)
    of_gx = needs[0] * (4 + 2 * (not needs[1]) + (not needs[2]))
    return Cost(
        output=x,
        kept=kept,
        flops=Split(7 * n, of_gx * n, (2 * needs[1] + needs[2]) * n),
        forward_workspace=(0 if kept else nbytes(x, dtype))  # x_hat is made either way, and so are mean and inv_std
        + (2 - needs[0]) * vector
        + 2 * sums
        + STATISTICS.workspace(x[3], dtype),
        backward_workspace=beyond(gx + ggamma + gbeta, passed),
    )


batch_norm = Op(
    "batch_norm", INPUTS, Functions(output_shape, forward, backward, cost),
    attrs=("eps", "momentum"), never=INPUTS[3:], updates=INPUTS[3:],
)  # fmt: skip
