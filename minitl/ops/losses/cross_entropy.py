"""Softmax cross-entropy, the mean over the batch.

    p[n, k] = exp(z[n, k] - max z[n]) / sum over j of exp(z[n, j] - max z[n])
    loss    = - sum over n of log p[n, label[n]] / N
    gz      = gy (p - onehot(label)) / N

With label smoothing s (Szegedy et al. 2016, arXiv:1512.00567) and class weights w, as
`torch.nn.functional.cross_entropy` has them, W being the sum of w[label[n]] over n:

    loss     = - sum over n of ((1 - s) w[label[n]] log p[n, label[n]] + s/K sum over k of w[k] log p[n, k]) / W
    gz[n, k] = gy (a[n] p[n, k] - (1 - s) w[k] [k = label[n]] - s/K w[k]) / W
    a[n]     = (1 - s) w[label[n]] + s/K sum over k of w[k]

Kept: the probabilities and the labels. Logits are shifted by their maximum, so no exponential
overflows, and the logarithm is taken of the sum, so none of zero. Sums go over k, then over n, in float64;
exponential and logarithm are in plain arithmetic (`kernels.formula`), so every machine gives the same bytes.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, to_numpy
from minitl.errors import DtypeError, ShapeError, ValueRangeError, brief
from minitl.kernels.formula import exp, log
from minitl.ops.expect import expect_numbers
from minitl.ops.kept import GRAD_INPUT
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, keeps_array, keeps_input
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """() for logits (N, K) and labels (N,)."""
    z, labels = shapes
    if len(z) != 2 or labels != z[:1] or 0 in z:
        raise ShapeError(op="cross_entropy", expected="logits (N, K) and labels (N,)", got=f"{z} and {labels}")
    return ()


def forward(z: Array, labels: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The loss as an array of no axes; keeps probabilities and labels where gz is wanted."""
    expect_labels(labels, z.shape[1])
    smoothing, weights = _options(attrs, z.shape[1])
    shifted = z - z.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(z)), labels].astype(np.float64)
    spread = _sum(shifted * weights) if smoothing else 0.0
    p = exp(shifted)
    total = _sum(p)
    p = (p / total[:, None]).astype(z.dtype)
    logs, own = log(total), weights[labels]
    losses = (1 - smoothing) * own * (logs - picked) + smoothing / len(weights) * (_sum(weights) * logs - spread)
    loss = _sum(losses) / _sum(own)
    saved = Saved()
    if needs[0]:
        saved.keep("probabilities", p, GRAD_INPUT)
        saved.keep("labels", labels.astype(np.int64, copy=False), GRAD_INPUT)
    return np.array(loss, z.dtype), saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gz = gy (p - onehot) / N; smoothed or weighted, as above."""
    gz, labels = saved["probabilities"].copy(), saved["labels"]
    rows, dtype = np.arange(len(gz)), gz.dtype.type
    if not attrs:
        gz[rows, labels] -= 1
        gz *= gy / dtype(len(gz))
        return gz, None
    smoothing, weights = _options(attrs, gz.shape[1])
    own, even = (1 - smoothing) * weights[labels], smoothing / len(weights) * weights
    gz *= (own + even.sum()).astype(dtype)[:, None]
    gz[rows, labels] -= own.astype(dtype)
    gz -= even.astype(dtype)
    gz *= gy / dtype(weights[labels].sum())
    return gz, None


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """Operations: 5 per logit forward (max, subtract, exp, sum, divide) and 3 per sample; 1 and 1 backward.

    Smoothing or weights add 2 per logit and 6 per sample forward; 2 and 3 backward.
    """
    (samples, classes), z = shapes[0], shapes[0]
    _options(attrs, classes)  # raises where the loss would
    kept = keeps_array("probabilities", z, dtype, GRAD_INPUT), keeps_input("labels", 1, z[:1], "int64", GRAD_INPUT)
    up, down = (7 * classes + 9, 3 * classes + 4) if attrs else (5 * classes + 3, classes + 1)
    return Cost(
        output=(),
        kept=kept if needs[0] else (),
        flops=Split(samples * up, needs[0] * samples * down),
        forward_workspace=(7 - needs[0]) * nbytes(z, dtype)  # the exponential's, mostly
        + 4 * samples * classes
        + nbytes((classes,), "float64"),  # the weights of the classes
    )


def expect_labels(labels: Array, classes: int) -> None:
    """Raise DtypeError or ValueRangeError unless labels are integers from 0 to classes - 1."""
    if labels.dtype.kind not in "iu":
        kind, remedy = labels.dtype.name, "use .astype(int)"
        raise DtypeError(op="cross_entropy", expected="integer labels", got=kind, remedy=remedy)
    if labels.min() < 0 or labels.max() >= classes:
        wrong, expected = labels[(labels < 0) | (labels >= classes)][0], f"labels from 0 to {classes - 1}"
        remedy = "leave unlabelled images out" if wrong < 0 else "build the network with num_classes large enough"
        raise ValueRangeError(op="cross_entropy", expected=expected, got=f"{wrong}", remedy=remedy)


def _options(attrs: Attrs, classes: int) -> tuple[float, Array]:
    """Label smoothing, 0 by default, and class weights (K,), 1 by default, in float64."""
    expect_numbers("cross_entropy", attrs, smoothing=1)
    weights = to_numpy(attrs.get("weights", np.ones(classes)), op="cross_entropy")
    numbers = weights.dtype.kind in "fiu" and weights.shape == (classes,)
    if not (numbers and np.isfinite(weights).all() and weights.min() > 0):
        got = brief(weights.tolist())
        raise ValueRangeError(op="cross_entropy", expected=f"{classes} finite class weights above 0", got=got)
    return attrs.get("smoothing", 0.0), weights.astype(np.float64, copy=False)


def _sum(x: Array) -> Array:
    """The sum over the last axis, in its order, in float64."""
    return np.cumsum(x, axis=-1, dtype=np.float64)[..., -1].copy()  # a view would hold all of them


cross_entropy = Op(
    "cross_entropy", ("z", "labels"), Functions(output_shape, forward, backward, cost),
    attrs=("smoothing", "weights"), activations=2, never=("labels",),
)  # fmt: skip
