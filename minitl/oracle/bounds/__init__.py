"""How far a correct implementation may be from the truth: elementwise bounds, derived.

Let u be the unit roundoff of the floats an implementation computes in (2^-11, 2^-24, 2^-53 for
f16, f32, f64) and gamma(K) = K u / (1 - K u), the relative error of K roundings in a row (Higham
2002, Accuracy and Stability of Numerical Algorithms, section 3.1). Every value v of the step has
a bound E(v): an implementation's v may differ from the exact one by E(v). Inputs and parameters
are float32 numbers, so E = 0 for them in f32 and f64, and |v - round(v)| in f16. Every op then
turns the bounds of what it reads into those of what it makes, by the formulas in the files here.
All hold for any order of summation, with or without fused multiply-add, in blocks or all at
once, and for accumulators of higher precision.

Gradients that meet (at a residual) add: E(a + b) = E(a) + E(b) + u (|a + b| + E(a) + E(b)).
Underflow adds at most the smallest subnormal a rounding. The truth itself is computed in f64, so
its own bound is added: tol.f32 = E32 + E64, tol.f64 = 2 E64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minitl.arrays import Array
from minitl.errors import unknown
from minitl.ops.convolutions.conv_int import conv_int
from minitl.ops.rules import approximate, sparse, subspace
from minitl.oracle.bounds import activations, loss, mechanisms, norms, standardised, sums
from minitl.oracle.bounds.precision import PRECISIONS, Call, Errors, Precision

Forward = Callable[[Call, Precision], None]
Backward = Callable[[Call, Array, Array, Sequence[Array | None], Precision], Errors]
SUMS = (
    "conv", "depthwise_conv", "pointwise_conv", "grouped_conv", "linear", "gated_conv", "global_avg_pool", "avg_pool",
    "scale", "add", "multiply", "add_channels",
)  # fmt: skip
BOUNDS: dict[str, tuple[Forward, Backward]] = {  # by rule, where that decides; else by op
    **dict.fromkeys(SUMS, (sums.forward, sums.backward)),
    **dict.fromkeys(activations.DESCRIBED, (activations.forward, activations.backward)),
    "bilinear_up": (sums.bilinear_forward, sums.bilinear_backward),
    "frozen_norm": (norms.frozen_forward, norms.frozen_backward),
    "batch_norm": (norms.batch_forward, norms.batch_backward),
    "group_norm": (norms.group_forward, norms.group_backward),
    "standardised_conv": (standardised.forward, standardised.backward),
    "cross_entropy": (loss.forward, loss.backward),
    **dict.fromkeys(approximate.CODED, (mechanisms.coded_forward, mechanisms.coded_backward)),
    **dict.fromkeys(subspace.RULES, (mechanisms.subspace_forward, mechanisms.subspace_backward)),
    **dict.fromkeys(conv_int.rules, (mechanisms.integer_forward, mechanisms.integer_backward)),
    sparse.RULE: (mechanisms.pruned_forward, mechanisms.pruned_backward),
}
__all__ = ["PRECISIONS", "Call", "Errors", "Precision", "backward", "forward"]


def forward(call: Call, p: Precision) -> None:
    """Fill in the bounds of what the call made."""
    _of(call)[0](call, p)


def backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """Bounds of the gradients of a call, given gy and its bound."""
    return _of(call)[1](call, gy, error, gradients, p)


def _of(call: Call) -> tuple[Forward, Backward]:
    known = call.rule if call.rule in BOUNDS else call.op.name
    if known not in BOUNDS:
        raise unknown("op, for which no bounds are derived", call.op.name, BOUNDS)
    return BOUNDS[known]
