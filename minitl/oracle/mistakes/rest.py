"""Mistakes in what else a step is made of: gates, pools, residuals, the loss, and gradients passed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from minitl.arrays import Array
from minitl.oracle.mistakes.activations import CONVS, FUNCTIONS, NORMS, other
from minitl.oracle.mistakes.results import FACTORS
from minitl.oracle.mistakes.tape import Backward, Call, Mistake
from minitl.oracle.recipes import ACTIVATIONS

PASSED = (*CONVS, *NORMS, *ACTIVATIONS, "scale", "global_avg_pool", "avg_pool", "bilinear_up", "add")


def mistakes() -> Iterator[Mistake]:
    """All of them."""
    yield from _residual()
    yield from _gate()
    yield from _pool()
    yield from _loss()
    for factor, text in (*FACTORS, (0.0, "not passed on")):
        yield Mistake(f"a gradient {text}", PASSED, None, _times(factor))


def _times(factor: float, first: int = 0) -> Backward:
    """The gradients of the operands, from the first one named, times a factor; those of the parameters are right."""

    def backward(c: Call, gy: Array) -> tuple[Array | None, ...]:
        scaled = range(first, c.op.activations)
        return tuple(factor * g if g is not None and i in scaled else g for i, g in enumerate(c.backward(gy)))

    return backward


def _residual() -> Iterator[Mistake]:
    yield Mistake("the residual is missing", ("add",), lambda c: c.arrays[0], lambda c, gy: (gy, 0 * gy))
    yield Mistake(
        "the residual is there twice", ("add",), lambda c: c.forward() + c.arrays[1], lambda c, gy: (gy, 2 * gy)
    )


def _gate() -> Iterator[Mistake]:
    for factor, text in ((0.0, "missing"), (2.0, "doubled"), (-1.0, "of the wrong sign")):
        yield Mistake(f"the gradient that flows through the gate is {text}", ("scale",), None, _times(factor, first=1))
    yield Mistake("the gate is left out", ("scale",), lambda c: c.x, lambda c, gy: (gy, 0 * c.arrays[1]))
    for name in ("hard_swish", "relu6"):
        for layer in ("se.act", "act"):
            cause = f"{name} between the layers of squeeze-and-excite, where relu is right"
            yield replace(other(cause, ("relu",), *FUNCTIONS[name]), layer=layer)


def _scaled(cause: str, op: str, factor: Callable[[Call], int]) -> Mistake:
    """Output and gradient times a factor."""
    return Mistake(
        cause, (op,), lambda c: c.forward() * factor(c),
        lambda c, gy: (c.input_gradient(gy) * factor(c), *c.backward(gy)[1:]),
    )  # fmt: skip


def _pool() -> Iterator[Mistake]:
    cause = "pooling sums where it should average: not divided by the area"
    yield _scaled(cause, "global_avg_pool", lambda c: c.x[0, :, :, 0].size)
    yield _scaled(cause, "avg_pool", lambda c: int(c.attrs["window"]) ** 2)


def _loss() -> Iterator[Mistake]:
    of = ("cross_entropy",)
    yield _scaled("sum over the batch in the loss, where the mean is right", *of, lambda c: len(c.x))

    def probabilities(c: Call, gy: Array) -> tuple[Array, None]:
        return gy * _softmax(c.x) / len(c.x), None

    softmax = "softmax before the loss, which takes logits: it is applied twice"
    yield Mistake(softmax, of, lambda c: _entropy(_softmax(c.x), c.arrays[1]), _through_softmax)
    for by, text in ((1, "high"), (-1, "low")):
        yield Mistake(f"labels one too {text}", of, partial(_loss_of, by), partial(_slope_of, by))
    yield Mistake("the label's 1 is not subtracted in the loss's gradient", of, None, probabilities)
    yield Mistake("gy ignored (taken as 1)", of, None, lambda c, gy: c.backward(np.ones_like(gy)))


def _softmax(z: Array) -> Array:
    shifted = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _picked(z: Array, labels: Array) -> tuple[Array, Array]:
    """Where the labels' values are; one beyond the last class is the first."""
    return np.arange(len(z)), labels % z.shape[1]


def _entropy(z: Array, labels: Array) -> Array:
    return np.asarray(-np.log(_softmax(z)[_picked(z, labels)]).mean())


def _slope(z: Array, labels: Array) -> Array:
    p = _softmax(z)
    p[_picked(z, labels)] -= 1
    return p / len(z)


def _loss_of(by: int, c: Call) -> Array:
    return _entropy(c.x, c.arrays[1] + by)


def _slope_of(by: int, c: Call, gy: Array) -> tuple[Array, None]:
    return gy * _slope(c.x, c.arrays[1] + by), None


def _through_softmax(c: Call, gy: Array) -> tuple[Array, None]:
    p = _softmax(c.x)
    g = gy * _slope(p, c.arrays[1])
    return p * (g - (g * p).sum(axis=1, keepdims=True)), None
