"""Activations: where they change branch, their slopes, and the bounds of both.

They are piecewise smooth with slope s(x). Where operands are inexact, generation keeps each x
further than 4 E(x) + 16 u from every kink, so that all branches agree and

    E(y)  = (|s| + E(x) / 3) E(x) + rounding        (1/3 = Lipschitz constant of Hard-Swish's slope inside; else 0)
    E(gx) = (|s| + E(s)) E(gy) + |gy| E(s) + gamma(3) |gx|,   E(s) = E(x) / 3 + gamma(3) (|x| / 3 + 1/2)

with rounding gamma(4) |x| for Hard-Swish, gamma(4) (|x| + 3) / 6 for hard-sigmoid and 0 for
ReLU and ReLU6. Slopes read from a code have E(s) = 2 u |s|, none for 0 and 1.
Hard-Swish's slope from its output is
r / 6 with r = sqrt(t), t = 9 + 24 y: E(t) = 24 E(y) + gamma(3) (9 + 24 |y|) and
E(r) = min(sqrt(E(t)), E(t) / r) + 2 u r; the bound is the larger of the two, so either way will do.

Sigmoid and SiLU are smooth; with s the sigmoid, made of an exponential within 4 u or of a tanh,

    E(s) = (s' + E(x) / 10) E(x) + gamma(6) (s + 1/2)
    E(x s) = (|s + x s'| + E(x) / 2) E(x) + |x| gamma(6) (s + 1/2) + gamma(2) |y|
    E(slope) = E(y) + gamma(3) s (1 - s)                                               of the sigmoid
    E(slope) = E(x) / 2 + (1 + |x|) (gamma(6) (s + 1/2) + gamma(5) s)                  of SiLU
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array
from minitl.errors import unknown
from minitl.kernels.formula import exp
from minitl.ops.activations.few_bits import hard_swish_levels
from minitl.oracle.bounds.precision import Call, Errors, Precision

DESCRIBED = ("relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu")
SMOOTH = ("sigmoid", "silu")
STEEPEST_SLOPE = {"sigmoid": 0.1, "silu": 0.5}  # the most that |f''| is: 1 / (6 sqrt 3), and 1/2 at 0


def kinks(op: str, rule: str) -> tuple[float, ...]:
    """Where an activation, its slope, or the code it keeps changes branch."""
    if op == "relu":
        return (0.0,)
    if op == "relu6":
        return (0.0, 6.0)
    if op == "hard_sigmoid":
        return (-3.0, 3.0)
    if op in SMOOTH:
        return (0.0,) if rule == "sign" else ()
    if op != "hard_swish":
        raise unknown("activation, whose kinks nobody described", op, DESCRIBED)
    extra: tuple[float, ...] = {"sign": (0.0,), "output-sign": (0.0,), "output": (-1.5,)}.get(rule, ())
    if rule.startswith("few"):
        extra = hard_swish_levels(int(rule[3:])).borders
    return tuple(sorted({-3.0, 3.0, *extra}))


def slope(op: str, x: Array) -> Array:
    """The exact slope, by the conventions at the kinks."""
    if op == "relu":
        return (x > 0).astype(np.float64)
    if op == "relu6":
        return ((x > 0) & (x < 6)).astype(np.float64)
    if op == "hard_sigmoid":
        return ((x > -3) & (x < 3)) / 6.0
    if op in SMOOTH:
        s = _sigmoid(x)
        return np.asarray(s * (1 - s) if op == "sigmoid" else s * (1 + x * (1 - s)))
    if op != "hard_swish":
        raise unknown("activation, whose slope nobody described", op, DESCRIBED)
    return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6))


def inside(x: Array) -> Array:
    """Whether x lies where Hard-Swish and hard-sigmoid are neither 0 nor clipped: -3 < x < 3."""
    return (x > -3) & (x < 3)


def forward(call: Call, p: Precision) -> None:
    """E(y)."""
    x, error = call.arrays[0], call.errors[0]
    steepness = np.abs(slope(call.op.name, x))
    if call.op.name in SMOOTH:
        call.y_error = (steepness + STEEPEST_SLOPE[call.op.name] * error) * error + _smooth_rounding(call, p)
        return
    if call.op.name == "hard_swish":
        bent = np.where(inside(x), error / 3, 0.0)
        rounding = np.where(inside(x), p.rounding(4, np.abs(x)), p.rounding(2, np.abs(call.y)))
        call.y_error = (steepness + bent) * error + rounding
    elif call.op.name == "hard_sigmoid":
        call.y_error = steepness * error + np.where(
            inside(x), p.rounding(4, (np.abs(x) + 3) / 6), p.rounding(2, call.y)
        )
    else:
        passes = (x > 0) & ((x < 6) | (call.op.name == "relu"))
        call.y_error = np.where(passes, error, 0.0)


def backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """E(gx)."""
    gx = gradients[0]
    if gx is None:
        return [None]
    x, name = call.arrays[0], call.op.name
    if name in SMOOTH and call.rule == "exact":
        s, of_slope = slope(name, x), _smooth_slope_error(call, p)
        rounding = p.rounding(3, np.abs(gx))
    elif name == "hard_swish" and call.rule in ("exact", "output"):
        s, of_slope = slope(name, x), np.where(inside(x), _slope_error(call, p), 0.0)
        rounding = np.where(inside(x), p.rounding(3, np.abs(gx)), 0.0)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            s = np.where(gy != 0, gx / gy, 0.0)
        exact = np.isin(np.abs(s), (0.0, 1.0))
        of_slope = np.where(exact, 0.0, 2 * np.abs(s) * p.u)
        rounding = np.where(of_slope > 0, p.rounding(3, np.abs(gx)), 0.0)
    return [(np.abs(s) + of_slope) * error + np.abs(gy) * of_slope + rounding]


def _slope_error(call: Call, p: Precision) -> Array:
    """Bound of Hard-Swish's slope between the kinks, computed from x or, with that rule, from y."""
    x, error = call.arrays[0], call.errors[0]
    from_x = error / 3 + p.gamma(3) * (np.abs(x) / 3 + 0.5)
    if call.rule != "output":
        return np.asarray(from_x)
    root = np.abs(2 * x + 3)
    radicand = 24 * call.y_error + p.gamma(3) * (9 + 24 * np.abs(call.y))
    with np.errstate(divide="ignore"):
        from_y = np.minimum(np.sqrt(radicand), radicand / root) + 2 * p.u * root
    return np.asarray(np.maximum(from_x, from_y / 6))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + exp(-x)))


def _smooth_rounding(call: Call, p: Precision) -> Array:
    """What sigmoid and SiLU add themselves, by whatever formula: an exponential, or a tanh near 1."""
    x = call.arrays[0]
    of_sigmoid = p.rounding(6, _sigmoid(x) + 0.5)
    return of_sigmoid if call.op.name == "sigmoid" else np.abs(x) * of_sigmoid + p.rounding(2, np.abs(call.y))


def _smooth_slope_error(call: Call, p: Precision) -> Array:
    """Bound of a slope made of the sigmoid s: y (1 - y), or s (1 + x (1 - s))."""
    x, error = call.arrays[0], call.errors[0]
    s = _sigmoid(x)
    if call.op.name == "sigmoid":
        return np.asarray(call.y_error + p.rounding(3, s * (1 - s)))
    of_s = p.rounding(6, s + 0.5)
    return np.asarray(error * STEEPEST_SLOPE["silu"] + (1 + np.abs(x)) * of_s + p.rounding(5, s * (1 + np.abs(x))))
