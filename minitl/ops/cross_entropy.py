"""Softmax cross-entropy, the mean over the batch.

    p[n, k] = exp(z[n, k] - max z[n]) / sum over j of exp(z[n, j] - max z[n])
    loss    = - sum over n of log p[n, label[n]] / N
    gz      = gy (p - onehot(label)) / N

Kept: the probabilities and the labels. Logits are shifted by their maximum, so no exponential
overflows, and the logarithm is taken of the sum, so none of zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.errors import DtypeError, ShapeError, ValueRangeError
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, keeps_array, keeps_input
from minitl.saved import Saved


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """() for logits (N, K) and labels (N,)."""
    z, labels = shapes
    if len(z) != 2 or labels != z[:1] or 0 in z:
        raise ShapeError(op="cross_entropy", expected="logits (N, K) and labels (N,)", got=f"{z} and {labels}")
    return ()


def forward(z: Array, labels: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The loss as an array of no axes; keeps probabilities and labels where gz is wanted."""
    expect_labels(labels, z.shape[1])
    p = z - z.max(axis=1, keepdims=True)
    picked = p[np.arange(len(z)), labels].astype(np.float64)
    np.exp(p, out=p)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    loss = np.mean(np.log(total[:, 0].astype(np.float64)) - picked)
    saved = Saved()
    if needs[0]:
        saved.keep("probabilities", p, ("grad_input",))
        saved.keep("labels", labels.astype(np.int64, copy=False), ("grad_input",))
    return np.array(loss, z.dtype), saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gz = gy (p - onehot) / N."""
    if not needs[0]:
        return None, None
    gz = saved["probabilities"].copy()
    gz[np.arange(len(gz)), saved["labels"]] -= 1
    gz *= gy / gz.dtype.type(len(gz))
    return gz, None


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """5 operations a logit forward (max, subtract, exp, sum, divide) and 3 a sample; 1 and 1 backward."""
    (samples, classes), labels = shapes
    z = shapes[0]
    probabilities = keeps_array("probabilities", z, dtype, ("grad_input",))
    kept = (probabilities, keeps_input("labels", 1, labels, "int64", ("grad_input",))) if needs[0] else ()
    return Cost(
        output=(),
        kept=kept,
        flops=Split(samples * (5 * classes + 3), needs[0] * samples * (classes + 1)),
        forward_workspace=0 if needs[0] else nbytes(z, dtype),
    )


def expect_labels(labels: Array, classes: int) -> None:
    """Raise DtypeError or ValueRangeError unless labels are integers from 0 to classes - 1."""
    if labels.dtype.kind not in "iu":
        raise DtypeError(
            op="cross_entropy", expected="integer labels", got=labels.dtype.name, remedy="use .astype(int)"
        )
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise ValueRangeError(
            op="cross_entropy",
            expected=f"labels from 0 to {classes - 1}",
            got=f"{wrong}",
            remedy="leave unlabelled images out" if wrong < 0 else "build the network with num_classes large enough",
        )


cross_entropy = Op(
    "cross_entropy", ("z", "labels"), output_shape, forward, backward, cost, activations=2, never=("labels",)
)
