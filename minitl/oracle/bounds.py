"""How far a correct implementation may be from the truth: elementwise bounds, derived.

Let u be the unit roundoff of the floats an implementation computes in (2^-11, 2^-24, 2^-53 for
f16, f32, f64) and gamma(K) = K u / (1 - K u), the relative error of K roundings in a row (Higham
2002, Accuracy and Stability of Numerical Algorithms, section 3.1). Every value v of the step has
a bound E(v): an implementation's v may differ from the exact one by E(v). Inputs and parameters
are float32 numbers, so E = 0 for them in f32 and f64, and |v - round(v)| in f16. Every op then
turns the bounds of what it reads into those of what it makes. All rules hold for any order of
summation, with or without fused multiply-add, in blocks or all at once, and for accumulators of
higher precision.

**Sums of products** (convolutions, linear, pool, multiply by a gate, add; forward and gradients).
Each result f is a polynomial of its operands with non-negative coefficients, so it is largest in
absolute values. With m = f(|a|) and M = f(|a| + E(a)), computed by the op's own loops,

    E(f) = (M - m) + gamma(K + 2) M

the first term for what the operands bring, the second for K terms added in any order: K is how
many terms an element really has, taps in the padding left out.

**Activations** are piecewise smooth with slope s(x). Where operands are inexact, generation keeps
each x further than 4 E(x) + 16 u from every kink, so that all branches agree and

    E(y)  = (|s| + E(x) / 3) E(x) + rounding        (1/3 = Lipschitz constant of Hard-Swish's slope inside; else 0)
    E(gx) = (|s| + E(s)) E(gy) + |gy| E(s) + gamma(3) |gx|,   E(s) = E(x) / 3 + gamma(3) (|x| / 3 + 1/2)

with rounding gamma(4) |x| for Hard-Swish, gamma(4) (|x| + 3) / 6 for hard-sigmoid and 0 for
ReLU and ReLU6. Slopes read from a code have E(s) = 2 u |s|, none for 0 and 1.
Hard-Swish's slope from its output is
r / 6 with r = sqrt(t), t = 9 + 24 y: E(t) = 24 E(y) + gamma(3) (9 + 24 |y|) and
E(r) = min(sqrt(E(t)), E(t) / r) + 2 u r; the bound is the larger of the two, so either way will do.

**Frozen norm.** s = gamma / sqrt(var + eps) has relative error rho = gamma(6) (eps rounded, sum, root,
quotient; f16: and the rounding of gamma and var). With S = |s| (|x| + E(x) + |mean|) + |beta|,

    E(y) = |s| E(x) + rho |s| (|x| + E(x) + |mean|) + gamma(5) S
    E(gx) = |s| E(gy) + (rho + gamma(2)) |s| (|gy| + E(gy))

**Batch norm** over M values a channel; means are over them, d = x - mean, r = inv_std:

    E(mean) = mean E(x) + gamma(M + 2) mean (|x| + E(x))
    E(var)  = mean (2 |d| E(x) + E(x)^2) + E(mean)^2 + gamma(M + 5) mean (|x| + E(x))^2
    rho     = E(var) / (2 (var + eps - E(var))) + gamma(5)                      relative error of r
    E(x_hat) = (1 + rho) (r (E(x) + E(mean)) + rho |x_hat| + gamma(3) r (|x| + |mean|))
    E(y)     = |gamma| E(x_hat) + gamma(4) (|gamma| r (|x| + |mean|) + |beta|)
    E(gbeta), E(ggamma): sums of products of gy, and of gy and x_hat, as above
    E(gx)    = |gamma| r ((1 + rho) (E(gy) + E(gbeta) / M + (|x_hat| E(ggamma) + E(x_hat) (|ggamma| + E(ggamma))) / M)
                          + (rho + gamma(7)) (|gy| + |gbeta| / M + |x_hat ggamma| / M))

The first term of E(var) has no E(mean) because sum d = 0: a variance does not see a small error of the
mean but in its square. Two-pass, shifted, blockwise and Welford's sums are covered.
The running mean and variance add gamma(4) of their own terms.

**Cross-entropy.** With D = max z - z and L = log sum exp(-D), exponents are off by
R = 4 max E(z) + gamma(K + 12) + gamma(4) (D + L), for exponentials within 4 u: E(p) = p R (1 + R), E(loss) = mean R at
the label + gamma(N + 4) mean (D + L), E(gz) = |gy| (E(p) + gamma(4) (p + onehot)) / N + E(gy) (p + onehot) / N.

**Gradients that meet** (at a residual) add: E(a + b) = E(a) + E(b) + u (|a + b| + E(a) + E(b)).
Underflow adds at most the smallest subnormal a rounding. The truth itself is computed in f64, so
its own bound is added: tol.f32 = E32 + E64, tol.f64 = 2 E64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from minitl.arrays import Array, positions
from minitl.errors import unknown
from minitl.ops.few_bits import hard_swish_levels
from minitl.ops.op import Attrs, Op
from minitl.saved import Saved

Errors = list[Array | None]
F = TypeVar("F")
DESCRIBED = ("relu", "relu6", "hard_swish", "hard_sigmoid")  # activations


@dataclass(frozen=True)
class Precision:
    """A floating-point format: its short name, NumPy's dtype and unit roundoff."""

    name: str
    dtype: str
    u: float

    def gamma(self, count: Array | float) -> Array:
        """K u / (1 - K u); 2 K u where that makes no sense, which still bounds a sum (Jeannerod & Rump 2013)."""
        ku = np.asarray(count, np.float64) * self.u
        return np.asarray(ku / (1 - np.minimum(ku, 0.5)))

    def rounding(self, count: Array | float, size: Array) -> Array:
        """Error of `count` roundings of terms whose absolute values sum to `size`; none where all are 0."""
        tiny = float(np.finfo(np.dtype(self.dtype)).smallest_subnormal)
        return np.asarray(np.where(size > 0, self.gamma(count) * size + 4 * np.asarray(count) * tiny, 0.0))

    def entering(self, value: Array) -> Array:
        """Error of rounding an input to this format."""
        if value.dtype.kind != "f":
            return np.zeros(value.shape)
        return np.asarray(np.abs(value - value.astype(self.dtype).astype(np.float64)))


PRECISIONS = {
    "f16": Precision("f16", "float16", 2.0**-11),
    "f32": Precision("f32", "float32", 2.0**-24),
    "f64": Precision("f64", "float64", 2.0**-53),
}


@dataclass(eq=False)
class Call:
    """One op that ran in float64: what it read and made, and the bounds of all of it."""

    op: Op
    arrays: tuple[Array, ...]
    errors: tuple[Array, ...]
    attrs: Attrs
    needs: Sequence[bool]
    rule: str
    y: Array
    saved: Saved
    y_error: Array = field(default_factory=lambda: np.zeros(()))
    kept: dict[str, Array] = field(default_factory=dict)  # bounds of buffers that forward made
    updated: dict[str, Array] = field(default_factory=dict)  # bounds of the running statistics


def forward(call: Call, p: Precision) -> None:
    """Fill in the bounds of what the call made."""
    _known(FORWARD, call)(call, p)


def backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """Bounds of the gradients of a call, given gy and its bound."""
    return _known(BACKWARD, call)(call, gy, error, gradients, p)


def _known(table: Mapping[str, F], call: Call) -> F:
    if call.op.name not in table:
        raise unknown("op, for which no bounds are derived", call.op.name, table)
    return table[call.op.name]


# Sums of products: the op itself, on absolute values.


def _run(call: Call, arrays: Sequence[Array], gy: Array | None) -> list[Array | None]:
    y, saved = call.op.forward(*arrays, attrs=call.attrs, needs=call.needs, rule=call.rule)
    if gy is None:
        return [y]
    params = arrays[call.op.activations :]
    return list(call.op.backward(saved, gy, attrs=call.attrs, needs=call.needs, params=params))


def _products(call: Call, gy: Array | None, error: Array | None, p: Precision) -> Errors:
    small = _run(call, [np.abs(a) for a in call.arrays], None if gy is None else np.abs(gy))
    raised = [np.abs(a) + e for a, e in zip(call.arrays, call.errors, strict=True)]
    large = _run(call, raised, None if gy is None or error is None else np.abs(gy) + error)
    counts = _counts(call, gy)
    return [
        None if m is None or big is None or k is None else np.maximum(big - m, 0) + p.rounding(k + 2, big)
        for m, big, k in zip(small, large, counts, strict=True)
    ]


def _counts(call: Call, gy: Array | None) -> list[Array | None]:
    """How many terms each result has: the op applied to ones, where its coefficients are all 1."""
    ones = _run(call, [np.ones_like(a) for a in call.arrays], None if gy is None else np.ones_like(gy))
    if call.op.name == "global_avg_pool":
        return [np.asarray(float(positions(call.arrays[0].shape[1:]))) for _ in ones]
    if call.op.name == "gated_conv":  # roundings in a row, not products of two sums
        most = positions(call.arrays[0].shape) + sum(call.arrays[2].shape[:2]) + len(call.arrays[0]) + 4.0
        return [np.asarray(most) for _ in ones]
    return ones


def _sums_forward(call: Call, p: Precision) -> None:
    (error,) = _products(call, None, None, p)
    assert error is not None
    call.y_error = error


def _sums_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    return _products(call, gy, error, p)


# Activations.


def kinks(op: str, rule: str) -> tuple[float, ...]:
    """Where an activation, its slope, or the code it keeps changes branch."""
    if op == "relu":
        return (0.0,)
    if op == "relu6":
        return (0.0, 6.0)
    if op == "hard_sigmoid":
        return (-3.0, 3.0)
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
    if op != "hard_swish":
        raise unknown("activation, whose slope nobody described", op, DESCRIBED)
    return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6))


def _inside(x: Array) -> Array:
    return (x > -3) & (x < 3)


def _activation_forward(call: Call, p: Precision) -> None:
    x, error = call.arrays[0], call.errors[0]
    steepness = np.abs(slope(call.op.name, x))
    if call.op.name == "hard_swish":
        bent = np.where(_inside(x), error / 3, 0.0)
        rounding = np.where(_inside(x), p.rounding(4, np.abs(x)), p.rounding(2, np.abs(call.y)))
        call.y_error = (steepness + bent) * error + rounding
    elif call.op.name == "hard_sigmoid":
        call.y_error = steepness * error + np.where(
            _inside(x), p.rounding(4, (np.abs(x) + 3) / 6), p.rounding(2, call.y)
        )
    else:
        passes = (x > 0) & ((x < 6) | (call.op.name == "relu"))
        call.y_error = np.where(passes, error, 0.0)


def _activation_backward(
    call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision
) -> Errors:
    gx = gradients[0]
    if gx is None:
        return [None]
    x, name = call.arrays[0], call.op.name
    if name == "hard_swish" and call.rule in ("exact", "output"):
        s, of_slope = slope(name, x), np.where(_inside(x), _slope_error(call, p), 0.0)
        rounding = np.where(_inside(x), p.rounding(3, np.abs(gx)), 0.0)
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


# Norms.


def _frozen_scale(call: Call, p: Precision) -> tuple[Array, Array]:
    """The scale and its relative error."""
    _, gamma, _, _, var = call.arrays
    _, of_gamma, _, _, of_var = call.errors
    total = var + call.attrs.get("eps", 1e-5)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(of_gamma > 0, of_gamma / np.abs(gamma), 0.0) + of_var / (total - of_var)
    return gamma / np.sqrt(total), relative * (1 + relative) + p.gamma(6)


def _frozen_forward(call: Call, p: Precision) -> None:
    x, _, beta, mean, _ = call.arrays
    of_x, _, of_beta, of_mean, _ = call.errors
    scale, rho = _frozen_scale(call, p)
    reach = np.abs(scale) * (np.abs(x) + of_x + np.abs(mean) + of_mean)
    brought = np.abs(scale) * (of_x + of_mean) + of_beta
    call.y_error = brought + rho * reach + p.rounding(5, reach + np.abs(beta) + of_beta)


def _frozen_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
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
class _Batch:
    """Statistics of a batch norm's call and their bounds; `rho` is the relative error of `r`."""

    mean: Array
    r: Array
    x_hat: Array
    of_mean: Array
    of_var: Array
    rho: Array
    of_x_hat: Array


def _batch(call: Call, p: Precision) -> _Batch:
    x, error = call.arrays[0], call.errors[0]
    m, eps = positions(x.shape), call.attrs.get("eps", 1e-5)
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
    return _Batch(mean, r, x_hat, of_mean, of_var, rho, of_x_hat)


def _batch_forward(call: Call, p: Precision) -> None:
    b = _batch(call, p)
    x, gamma, beta, running_mean, running_var = call.arrays
    _, of_gamma, of_beta, of_rm, of_rv = call.errors
    m, momentum, scale = positions(x.shape), call.attrs.get("momentum", 0.1), np.abs(gamma) + of_gamma
    brought = scale * b.of_x_hat + of_gamma * np.abs(b.x_hat) + of_beta
    call.y_error = brought + p.rounding(4, scale * b.r * (np.abs(x) + np.abs(b.mean)) + np.abs(beta))
    call.kept = {"x_hat": b.of_x_hat, "inv_std": b.r * b.rho}
    unbiased = m / (m - 1)
    var = (1 / b.r**2 - call.attrs.get("eps", 1e-5)) * unbiased
    of_var = b.of_var * unbiased
    sizes = ((running_mean, of_rm, np.abs(b.mean), b.of_mean), (running_var, of_rv, var, of_var))
    call.updated = {
        name: of_old + momentum * of_new + p.rounding(5, 2 * np.abs(old) + momentum * (np.abs(new) + of_new))
        for name, (old, of_old, new, of_new) in zip(("running_mean", "running_var"), sizes, strict=True)
    }


def _batch_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    b, m = _batch(call, p), positions(gy.shape)
    gamma, of_gamma = call.arrays[1], call.errors[1]
    size = np.abs(gy)
    total, along = np.abs(_over(gy)), np.abs(_over(gy * b.x_hat))
    of_total = _sum_error(size, error, p)
    of_along = _sum_error(size * np.abs(b.x_hat), error * np.abs(b.x_hat) + (size + error) * b.of_x_hat, p)
    centred = (np.abs(b.x_hat) * of_along + b.of_x_hat * (along + of_along)) / m
    terms = size + (total + np.abs(b.x_hat) * along) / m
    scale = (np.abs(gamma) + of_gamma) * b.r
    of_gx = scale * ((1 + b.rho) * (error + of_total / m + centred) + b.rho * terms + p.rounding(7, terms))
    of_gx = of_gx + of_gamma * b.r * terms
    parts = (of_gx, of_along, of_total)
    return [*(_if(g, e) for g, e in zip(gradients, parts, strict=False)), None, None]


def _if(gradient: Array | None, error: Array) -> Array | None:
    return None if gradient is None else error


# Cross-entropy.


def _cross_entropy_forward(call: Call, p: Precision) -> None:
    z, labels = call.arrays
    error = call.errors[0]
    spread = z.max(axis=1, keepdims=True) - z
    total = np.log(np.add.reduce(np.exp(-spread), axis=1))[:, None]
    reach = spread + total
    off = 4 * error.max(axis=1, keepdims=True) + p.gamma(z.shape[1] + 12) + p.gamma(4) * reach
    probabilities = np.exp(-reach)
    call.kept = {"probabilities": probabilities * off * (1 + off), "labels": np.zeros(labels.shape)}
    at = np.arange(len(z)), labels
    call.y_error = np.asarray(np.mean(off[at]) + p.rounding(len(z) + 4, np.mean(reach[at])))


def _cross_entropy_backward(
    call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision
) -> Errors:
    z, labels = call.arrays
    hot = np.zeros(z.shape)
    hot[np.arange(len(z)), labels] = 1
    size = call.saved["probabilities"] + hot
    of_p = call.kept["probabilities"]
    return [((np.abs(gy) + error) * (of_p + p.rounding(4, size)) + error * size) / len(z), None]


SUMS = (
    "conv", "depthwise_conv", "pointwise_conv", "linear", "gated_conv", "global_avg_pool", "scale", "add"
)  # fmt: skip
FORWARD: dict[str, Callable[[Call, Precision], None]] = {
    **dict.fromkeys(SUMS, _sums_forward),
    **dict.fromkeys(DESCRIBED, _activation_forward),
    "frozen_norm": _frozen_forward,
    "batch_norm": _batch_forward,
    "cross_entropy": _cross_entropy_forward,
}
BACKWARD: dict[str, Callable[[Call, Array, Array, Sequence[Array | None], Precision], Errors]] = {
    **dict.fromkeys(SUMS, _sums_backward),
    **dict.fromkeys(DESCRIBED, _activation_backward),
    "frozen_norm": _frozen_backward,
    "batch_norm": _batch_backward,
    "cross_entropy": _cross_entropy_backward,
}
