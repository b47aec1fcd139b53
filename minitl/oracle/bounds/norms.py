"""Norms, with frozen statistics, with the batch's, and with those of groups of channels.

Frozen norm: s = gamma / sqrt(var + eps) has relative error rho = gamma(6) (eps rounded, sum, root,
quotient; f16: and the rounding of gamma and var). With S = |s| (|x| + E(x) + |mean|) + |beta|,

    E(y) = |s| E(x) + rho |s| (|x| + E(x) + |mean|) + gamma(5) S
    E(gx) = |s| E(gy) + (rho + gamma(2)) |s| (|gy| + E(gy))

Batch norm over M values a channel; means are over them, d = x - mean, r = inv_std:

    E(mean) = mean E(x) + gamma(M + 2) mean (|x| + E(x))
    E(var)  = mean (2 |d| E(x) + E(x)^2) + E(mean)^2 + gamma(M + 5) mean (|x| + E(x))^2
    rho     = E(var) / (2 (var + eps - E(var))) + gamma(5)                      relative error of r
    E(x_hat) = (1 + rho) (r (E(x) + E(mean)) + rho |x_hat| + gamma(3) r (|x| + |mean|))
    E(y)     = |gamma| E(x_hat) + gamma(4) (|gamma| r (|x| + |mean|) + |beta|)
    E(gbeta), E(ggamma): sums of products of gy, and of gy and x_hat (see `sums`)
    E(gx)    = |gamma| r ((1 + rho) (E(gy) + E(gbeta) / M + (|x_hat| E(ggamma) + E(x_hat) (|ggamma| + E(ggamma))) / M)
                          + (rho + gamma(7)) (|gy| + |gbeta| / M + |x_hat ggamma| / M))

The first term of E(var) has no E(mean) because sum d = 0: a variance does not see a small error of the
mean but in its square. Two-pass, shifted, blockwise and Welford's sums are covered.
The running mean and variance add gamma(5) of their own terms.

Group norm has the same bounds over each sample's groups, gamma being that of a channel: E(gx) is that of gy gamma,
with 1 in place of gamma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minitl.arrays import Array, positions
from minitl.oracle.bounds.precision import Call, Errors, Precision


def _frozen_scale(call: Call, p: Precision) -> tuple[Array, Array]:
    """The scale and its relative error."""
    _, gamma, _, _, var = call.arrays
    _, of_gamma, _, _, of_var = call.errors
    total = var + call.attrs.get("eps", 1e-5)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(of_gamma > 0, of_gamma / np.abs(gamma), 0.0) + of_var / (total - of_var)
    return gamma / np.sqrt(total), relative * (1 + relative) + p.gamma(6)


def frozen_forward(call: Call, p: Precision) -> None:
    """E(y)."""
    x, _, beta, mean, _ = call.arrays
    of_x, _, of_beta, of_mean, _ = call.errors
    scale, rho = _frozen_scale(call, p)
    reach = np.abs(scale) * (np.abs(x) + of_x + np.abs(mean) + of_mean)
    brought = np.abs(scale) * (of_x + of_mean) + of_beta
    call.y_error = brought + rho * reach + p.rounding(5, reach + np.abs(beta) + of_beta)


def frozen_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """E(gx) and E(gbeta)."""
    scale, rho = _frozen_scale(call, p)
    raised = np.abs(scale) * (np.abs(gy) + error)
    of_gx = np.abs(scale) * error + rho * raised + p.rounding(2, raised)
    return [_if(gradients[0], of_gx), None, _if(gradients[2], _sum_error(np.abs(gy), error, p)), None, None]


def _sum_error(size: Array, error: Array, p: Precision) -> Array:
    """Bound of a sum over the positions of values of that size and error."""
    total = _over(size + error)
    return np.asarray(_over(error) + p.rounding(positions(size.shape) + 2, total))


def _over(values: Array) -> Array:
    """Sum over all axes but the channels, in order."""
    return np.asarray(np.add.reduce(values.reshape(-1, values.shape[-1]), axis=0))


@dataclass(eq=False)
class Statistics:
    """Statistics of groups of values and their bounds; `rho` is the relative error of `r`, which is inv_std.

    Values stand as (values of a group, groups), see `_to_groups`.
    """

    mean: Array
    r: Array
    x_hat: Array
    of_mean: Array
    of_var: Array
    rho: Array
    of_x_hat: Array


def _statistics(call: Call, p: Precision) -> Statistics:
    x, error = (_to_groups(a, call) for a in (call.arrays[0], call.errors[0]))
    m, eps = len(x), call.attrs.get("eps", 1e-5)
    mean, raised = _over(x) / m, np.abs(x) + error
    d = x - mean
    var = _over(d * d) / m
    of_mean = _over(error) / m + p.rounding(m + 2, _over(raised) / m)
    of_var = _over(2 * np.abs(d) * error + error**2) / m + of_mean**2 + p.rounding(m + 5, _over(raised**2) / m)
    left = var + eps - of_var
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.where(left > 0, of_var / (2 * left), np.inf) + p.gamma(5)
    r = 1 / np.sqrt(var + eps)
    x_hat = d * r
    of_x_hat = (1 + rho) * (r * (error + of_mean) + rho * np.abs(x_hat) + p.rounding(3, r * (np.abs(x) + np.abs(mean))))
    return Statistics(mean, r, x_hat, of_mean, of_var, rho, of_x_hat)


def _to_groups(a: Array, call: Call) -> Array:
    """A map (N, H, W, C) as (M, C), or in group norm as (values of a group, N groups)."""
    n, h, w, c = a.shape
    if call.op.name == "batch_norm":
        return a.reshape(-1, c)
    groups = call.attrs.get("groups", 1)
    return a.reshape(n, h * w, groups, c // groups).transpose(1, 3, 0, 2).reshape(-1, n * groups)


def _from_groups(a: Array, call: Call) -> Array:
    """The inverse; of a number for each group it stands at each of its values."""
    n, h, w, c = shape = call.arrays[0].shape
    if call.op.name == "batch_norm":
        return np.broadcast_to(a, (n * h * w, c)).reshape(shape)
    groups = call.attrs.get("groups", 1)
    every = np.broadcast_to(a, (h * w * (c // groups), n * groups))
    return every.reshape(h * w, c // groups, n, groups).transpose(2, 0, 3, 1).reshape(shape)


def _of_output(call: Call, b: Statistics, p: Precision) -> None:
    """E(y), and those of x_hat and inv_std."""
    x, gamma, beta, *_ = call.arrays
    _, of_gamma, of_beta, *_ = call.errors
    scale = np.abs(gamma) + of_gamma
    r, mean, x_hat, of_x_hat = (_from_groups(a, call) for a in (b.r, np.abs(b.mean), b.x_hat, b.of_x_hat))
    brought = scale * of_x_hat + of_gamma * np.abs(x_hat) + of_beta
    call.y_error = brought + p.rounding(4, scale * r * (np.abs(x) + mean) + np.abs(beta))
    call.kept = {"x_hat": of_x_hat, "inv_std": b.r * b.rho}


def batch_forward(call: Call, p: Precision) -> None:
    """E(y), and those of x_hat, inv_std and the running statistics."""
    b = _statistics(call, p)
    _of_output(call, b, p)
    running_mean, running_var = call.arrays[3:]
    of_rm, of_rv = call.errors[3:]
    m, momentum = positions(call.arrays[0].shape), call.attrs.get("momentum", 0.1)
    unbiased = m / (m - 1)
    var = (1 / b.r**2 - call.attrs.get("eps", 1e-5)) * unbiased
    of_var = b.of_var * unbiased
    sizes = ((running_mean, of_rm, np.abs(b.mean), b.of_mean), (running_var, of_rv, var, of_var))
    call.updated = {
        name: of_old + momentum * of_new + p.rounding(5, 2 * np.abs(old) + momentum * (np.abs(new) + of_new))
        for name, (old, of_old, new, of_new) in zip(("running_mean", "running_var"), sizes, strict=True)
    }


def group_forward(call: Call, p: Precision) -> None:
    """E(y), and those of x_hat and inv_std (N, groups)."""
    _of_output(call, _statistics(call, p), p)
    call.kept["inv_std"] = call.kept["inv_std"].reshape(len(call.arrays[0]), -1)


def batch_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """E(gx), E(ggamma) and E(gbeta)."""
    b = _statistics(call, p)
    gamma, of_gamma = call.arrays[1], call.errors[1]
    scale = (np.abs(gamma) + of_gamma) * b.r
    of_gx, terms, of_along, of_total = _centred(b, _to_groups(gy, call), _to_groups(error, call), scale, p)
    parts = (_from_groups(of_gx + of_gamma * b.r * terms, call), of_along, of_total)
    return [*(_if(g, e) for g, e in zip(gradients, parts, strict=False)), None, None]


def group_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """E(gx) from a = gy gamma, group by group; E(ggamma) and E(gbeta) over all positions."""
    b, gamma, of_gamma = _statistics(call, p), call.arrays[1], call.errors[1]
    a, raised = gy * gamma, (np.abs(gy) + error) * (np.abs(gamma) + of_gamma)
    of_a = raised - np.abs(a) + p.rounding(1, raised)
    of_gx, *_ = _centred(b, _to_groups(a, call), _to_groups(of_a, call), b.r, p)
    x_hat, of_x_hat = _from_groups(np.abs(b.x_hat), call), _from_groups(b.of_x_hat, call)
    of_along = _sum_error(np.abs(gy) * x_hat, error * x_hat + (np.abs(gy) + error) * of_x_hat, p)
    parts = (_from_groups(of_gx, call), of_along, _sum_error(np.abs(gy), error, p))
    return [_if(g, e) for g, e in zip(gradients, parts, strict=True)]


def _centred(b: Statistics, gy: Array, error: Array, scale: Array, p: Precision) -> tuple[Array, Array, Array, Array]:
    """Bounds of scale (gy - mean gy - x_hat mean(gy x_hat)), the size of its terms, and bounds of the two sums."""
    m, size = len(gy), np.abs(gy)
    total, along = np.abs(_over(gy)), np.abs(_over(gy * b.x_hat))
    of_total = _sum_error(size, error, p)
    of_along = _sum_error(size * np.abs(b.x_hat), error * np.abs(b.x_hat) + (size + error) * b.of_x_hat, p)
    of_means = (np.abs(b.x_hat) * of_along + b.of_x_hat * (along + of_along)) / m
    terms = size + (total + np.abs(b.x_hat) * along) / m
    of_gx = scale * ((1 + b.rho) * (error + of_total / m + of_means) + b.rho * terms + p.rounding(7, terms))
    return of_gx, terms, of_along, of_total


def _if(gradient: Array | None, error: Array) -> Array | None:
    return None if gradient is None else error
