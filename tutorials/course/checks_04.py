"""Checks of tutorial 4, batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from course import pieces
from course.attempt import Attempt
from course.case import Case
from course.exercise import exercise

Array = Any
Norm = dict[str, Array]
AXES = (0, 1, 2)
EPS = 1e-3


def normalised(case: Case, shape: tuple[int, ...]) -> dict[str, Array]:
    """What a batch norm keeps of a random map."""
    kept: dict[str, Array] = {}
    ones = np.ones(shape[-1], case.dtype)
    pieces.batch_norm(case.normal(*shape) * 2 + 1, {".weight": ones, ".bias": ones}, "", kept)
    return {name[1:]: array for name, array in kept.items()}


@exercise(
    "4a",
    hints=(
        "First gbeta and ggamma, which are sums over N, H and W. mean(gy) and mean(gy x_hat) are these, divided by "
        "the number of values per channel.",
        "m = N * H * W; gx = gamma * inv_std * (gy - gbeta / m - x_hat * ggamma / m).",
    ),
)
def norm_gradients(case: Case, batch_norm_backward: Attempt) -> None:
    """All three, and then what usual mistakes give for gx."""
    shape = case.map_shape()
    kept, gy, gamma = (
        normalised(case, shape),
        case.normal(*shape),
        case.uniform(0.5, 1.5, shape[-1]),
    )
    got = case.results(("gx", "ggamma", "gbeta"), batch_norm_backward(dict(kept), gy, gamma))
    x_hat, m = kept["x_hat"], int(np.prod(shape[:3]))
    along, total = (gy * x_hat).sum(axis=AXES), gy.sum(axis=AXES)
    averaged = "gamma and beta serve all positions of all images: sum, do not average."
    exchanged = "the results are exchanged; expected gx, ggamma, gbeta."
    case.same("ggamma", got[1], along, {averaged: lambda: along / m, exchanged: lambda: total})
    case.same("gbeta", got[2], total, {averaged: lambda: total / m, exchanged: lambda: along})
    case.same("gx", got[0], *likely_norm_gradients(kept, gy, gamma))


def likely_norm_gradients(kept: dict[str, Array], gy: Array, gamma: Array) -> tuple[Array, Any]:
    """The right gx, and what usual mistakes give."""
    x_hat, scale, m, n = kept["x_hat"], gamma * kept["inv_std"], gy[..., 0].size, len(gy)
    along, total = (gy * x_hat).sum(axis=AXES), gy.sum(axis=AXES)
    return scale * (gy - total / m - x_hat * along / m), {
        "you treat mean and variance as constants: that is the frozen norm's gradient; here each x moves them.": (
            lambda: scale * gy
        ),
        "the mean is taken from gy, but not its part along x_hat: the variance moves with x, too.": (
            lambda: scale * (gy - total / m)
        ),
        "the part along x_hat is taken from gy, but not its mean: the mean moves with x, too.": (
            lambda: scale * (gy - x_hat * along / m)
        ),
        "the means are per channel: axis=(0, 1, 2).": lambda: (
            scale * (gy - gy.mean() - x_hat * (gy * x_hat).mean())
        ),
        f"the mean is over N, H and W: M = {m}; you divided by {n}.": (
            lambda: scale * (gy - total / n - x_hat * along / n)
        ),
        "a mean is a sum divided by M = N H W; you took away the sums.": lambda: (
            scale * (gy - total - x_hat * along)
        ),
        "gamma is missing: y moves gamma times as much as x_hat.": (
            lambda: kept["inv_std"] * (gy - total / m - x_hat * along / m)
        ),
        "inv_std is missing: x_hat moves inv_std times as much as x.": (
            lambda: gamma * (gy - total / m - x_hat * along / m)
        ),
    }


def random_norm(case: Case, channels: int) -> Norm:
    """Parameters and statistics that look as if they had been trained; one variance is near eps."""
    var = case.uniform(0.2, 2, channels)
    var[0] = 2e-3
    return {
        "weight": case.uniform(0.5, 1.5, channels),
        "bias": case.normal(channels),
        "running_mean": case.normal(channels),
        "running_var": var,
    }


@exercise(
    "4b",
    hints=(
        "scale = gamma / sqrt(running_var + eps) and a shift. What of x does the backward need?",
        "y = (x - running_mean) * scale + bias; back: gy * scale, and gy.sum(axis=(0, 1, 2)). `kept` stays empty.",
    ),
)
def frozen(case: Case, frozen_norm: Attempt, frozen_norm_backward: Attempt) -> None:
    """Values, and an empty `kept`."""
    shape = case.map_shape()
    x, gy, p, kept = (
        case.normal(*shape),
        case.normal(*shape),
        random_norm(case, shape[-1]),
        dict[str, Any](),
    )
    gamma, beta, mean, var = p.values()
    scale = gamma / np.sqrt(var + EPS)
    case.same(
        "y",
        frozen_norm(x, p, kept),
        (x - mean) * scale + beta,
        {
            "eps is missing: a channel of variance 0 would divide by 0.": lambda: (
                (x - mean) * gamma / np.sqrt(var) + beta
            ),
            "eps belongs under the root: sqrt(running_var + eps).": (
                lambda: (x - mean) * gamma / (np.sqrt(var) + EPS) + beta
            ),
            "this is the batch's variance; frozen means running_var.": (
                lambda: (x - mean) * gamma / np.sqrt(x.var(axis=AXES) + EPS) + beta
            ),
            "these are the batch's statistics; frozen means running_mean and running_var.": (
                lambda: (x - x.mean(axis=AXES)) * gamma / np.sqrt(x.var(axis=AXES) + EPS) + beta
            ),
            "the shift, beta, is missing.": lambda: (x - mean) * scale,
            "gamma is missing: y is gamma x_hat + beta.": lambda: (
                (x - mean) / np.sqrt(var + EPS) + beta
            ),
            "divide by the root of the variance, not by the variance.": lambda: (
                (x - mean) * gamma / (var + EPS) + beta
            ),
        },
    )
    gx, gbeta = case.results(("gx", "gbeta"), frozen_norm_backward(kept, gy, p))
    case.same(
        "gx",
        gx,
        gy * scale,
        {
            "these are gradients of a norm whose statistics move with x; here they are constants.": (
                lambda: scale * (gy - gy.mean(axis=AXES))
            ),
            "y moves scale times as much as x: multiply gy by the scale.": lambda: gy,
            "gamma is missing: the scale is gamma / sqrt(running_var + eps).": lambda: (
                gy / np.sqrt(var + EPS)
            ),
            "this is gamma gy; the scale is gamma / sqrt(running_var + eps).": lambda: gy * gamma,
        },
    )
    case.same(
        "gbeta",
        gbeta,
        gy.sum(axis=AXES),
        {
            "the shift serves all positions of all images: sum, do not average.": lambda: gy.mean(
                axis=AXES
            )
        },
    )
    size = sum(a.nbytes for a in kept.values() if isinstance(a, np.ndarray))
    case.need(
        not size,
        f"The values are right, but `kept` holds {size:,} bytes that backward has no need of.",
    )


@exercise(
    "4c",
    hints=(
        "Write y = scale (W x - running_mean) + beta, and multiply out. Which axis of w has the output channels?",
        "w * scale[:, None, None, None], and bias - running_mean * scale.",
    ),
)
def folded(case: Case, fold: Attempt) -> None:
    """As many outputs as inputs, so that the wrong axis has the right shape."""
    o = int(case.rng.choice([5, 7, 9]))
    w, p = case.normal(o, o, 1, 1), random_norm(case, o)
    gamma, beta, mean, var = p.values()
    scale = gamma / np.sqrt(var + EPS)
    weight, bias = case.results(("weight", "bias"), fold(w, p))
    case.same(
        "weight",
        weight,
        w * scale[:, None, None, None],
        {
            "the scale belongs to the output channels, the first axis of (O, I, 1, 1).": (
                lambda: w * scale[None, :, None, None]
            ),
            "w * scale lines the scale up with the last axis: give it three more, scale[:, None, None, None].": (
                lambda: w * scale
            ),
            "eps is missing under the root.": lambda: (
                w * (gamma / np.sqrt(var))[:, None, None, None]
            ),
            "this is gamma w; the scale is gamma / sqrt(running_var + eps).": lambda: (
                w * gamma[:, None, None, None]
            ),
        },
    )
    case.same(
        "bias",
        bias,
        beta - mean * scale,
        {
            "the mean is scaled as well: scale (W x - mean).": lambda: beta - mean,
            "the sign: the mean is subtracted.": lambda: beta + mean * scale,
            "the mean is missing: scale (W x - mean) + beta.": lambda: beta,
            "beta stands outside the scale.": lambda: (beta - mean) * scale,
        },
    )
