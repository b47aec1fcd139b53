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

*Sigmoid and SiLU* are smooth; with s the sigmoid, made of an exponential within 4 u or of a tanh,

    E(s) = (s' + E(x) / 10) E(x) + gamma(6) (s + 1/2)
    E(x s) = (|s + x s'| + E(x) / 2) E(x) + |x| gamma(6) (s + 1/2) + gamma(2) |y|
    E(slope) = E(y) + gamma(3) s (1 - s)                                               of the sigmoid
    E(slope) = E(x) / 2 + (1 + |x|) (gamma(6) (s + 1/2) + gamma(5) s)                  of SiLU

**Interpolation** adds to its sums what its coefficients bring: 2 gamma(4) (H + W) times the largest value.

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

**Group norm** has the same bounds over each sample's groups, gamma being that of a channel: E(gx) is that of gy gamma,
with 1 in place of gamma.

**Standardised filters** of n numbers w, v = w - mean, d = sqrt(sum v^2 / (n - 1)) + eps, rho as of a variance over n:

    E(mean) = gamma(n + 2) mean |w|            E(v) = E(mean) + gamma(2) (|w| + mean |w|)
    E(v / d) = (1 + rho) E(v) / d + rho |v / d|

and their gradient's sum and its two factors d add 3 rho + gamma(8) of its terms.

**Gradient filtering** is a sum of products of sums: K counts all of its roundings in a row.

**Encoded inputs, subspaces, pruned weights, integers** (`mechanisms`) are sums of products with another operand: x' in
place of x, W_R in place of W. What is compared or rounded to a whole number is kept from being uncertain; a basis that
moves brings the sensitivity of its QR factorisation.

**Cross-entropy.** With D = max z - z and L = log sum exp(-D), exponents are off by
R = 4 max E(z) + gamma(K + 12) + gamma(4) (D + L), for exponentials within 4 u: E(p) = p R (1 + R), E(loss) = mean R at
the label + gamma(N + 4) mean (D + L), E(gz) = |gy| (E(p) + gamma(4) (p + onehot)) / N + E(gy) (p + onehot) / N.

**Gradients that meet** (at a residual) add: E(a + b) = E(a) + E(b) + u (|a + b| + E(a) + E(b)).
Underflow adds at most the smallest subnormal a rounding. The truth itself is computed in f64, so
its own bound is added: tol.f32 = E32 + E64, tol.f64 = 2 E64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from minitl.arrays import Array
from minitl.errors import unknown
from minitl.ops.convolutions.conv_int import conv_int
from minitl.ops.rules import approximate, sparse, subspace
from minitl.oracle.bounds import activations, loss, mechanisms, norms, standardised, sums
from minitl.oracle.bounds.precision import PRECISIONS, Call, Errors, Precision

F = TypeVar("F")

SUMS = (
    "conv", "depthwise_conv", "pointwise_conv", "grouped_conv", "linear", "gated_conv", "global_avg_pool", "avg_pool",
    "scale", "add", "multiply", "add_channels",
)  # fmt: skip
FORWARD: dict[str, Callable[[Call, Precision], None]] = {  # by rule, where that decides; else by op
    **dict.fromkeys(SUMS, sums.forward),
    **dict.fromkeys(activations.DESCRIBED, activations.forward),
    "bilinear_up": sums.bilinear_forward,
    "frozen_norm": norms.frozen_forward,
    "batch_norm": norms.batch_forward,
    "group_norm": norms.group_forward,
    "standardised_conv": standardised.forward,
    "cross_entropy": loss.forward,
    **dict.fromkeys(approximate.CODED, mechanisms.coded_forward),
    **dict.fromkeys(subspace.RULES, mechanisms.subspace_forward),
    **dict.fromkeys(conv_int.rules, mechanisms.integer_forward),
    sparse.RULE: mechanisms.pruned_forward,
}
BACKWARD: dict[str, Callable[[Call, Array, Array, Sequence[Array | None], Precision], Errors]] = {
    **dict.fromkeys(SUMS, sums.backward),
    **dict.fromkeys(activations.DESCRIBED, activations.backward),
    "bilinear_up": sums.bilinear_backward,
    "frozen_norm": norms.frozen_backward,
    "batch_norm": norms.batch_backward,
    "group_norm": norms.group_backward,
    "standardised_conv": standardised.backward,
    "cross_entropy": loss.backward,
    **dict.fromkeys(approximate.CODED, mechanisms.coded_backward),
    **dict.fromkeys(subspace.RULES, mechanisms.subspace_backward),
    **dict.fromkeys(conv_int.rules, mechanisms.integer_backward),
    sparse.RULE: mechanisms.pruned_backward,
}
__all__ = ["PRECISIONS", "Call", "Errors", "Precision", "backward", "forward"]


def forward(call: Call, p: Precision) -> None:
    """Fill in the bounds of what the call made."""
    _known(FORWARD, call)(call, p)


def backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """Bounds of the gradients of a call, given gy and its bound."""
    return _known(BACKWARD, call)(call, gy, error, gradients, p)


def _known(table: Mapping[str, F], call: Call) -> F:
    known = call.rule if call.rule in table else call.op.name
    if known not in table:
        raise unknown("op, for which no bounds are derived", call.op.name, table)
    return table[known]
