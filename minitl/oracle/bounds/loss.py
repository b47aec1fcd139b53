"""Softmax cross-entropy.

With D = max z - z and L = log sum exp(-D), exponents are off by R = 4 max E(z) + gamma(K + 12) + gamma(4) (D + L),
for exponentials within 4 u:

    E(p) = p R (1 + R)          E(loss) = mean R at the label + gamma(N + 4) mean (D + L)
    E(gz) = (|gy| + E(gy)) (E(p) + gamma(4) (p + onehot)) / N + E(gy) (p + onehot) / N
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array
from minitl.kernels.formula import exp, log
from minitl.oracle.bounds.precision import Call, Errors, Precision


def forward(call: Call, p: Precision) -> None:
    """E(loss), and that of the probabilities."""
    z, labels = call.arrays
    error = call.errors[0]
    spread = z.max(axis=1, keepdims=True) - z
    total = log(np.add.reduce(exp(-spread), axis=1))[:, None]
    reach = spread + total
    off = 4 * error.max(axis=1, keepdims=True) + p.gamma(z.shape[1] + 12) + p.gamma(4) * reach
    probabilities = exp(-reach)
    call.kept = {"probabilities": probabilities * off * (1 + off), "labels": np.zeros(labels.shape)}
    at = np.arange(len(z)), labels
    call.y_error = np.asarray(np.mean(off[at]) + p.rounding(len(z) + 4, np.mean(reach[at])))


def backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """E(gz)."""
    z, labels = call.arrays
    hot = np.zeros(z.shape)
    hot[np.arange(len(z)), labels] = 1
    size = call.saved["probabilities"] + hot
    of_p = call.kept["probabilities"]
    return [((np.abs(gy) + error) * (of_p + p.rounding(4, size)) + error * size) / len(z), None]
