"""Multiply two maps of one shape:  y = a b,  ga = gy b,  gb = gy a. Each factor is kept for the other's gradient."""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.ops.expect import expect_same
from minitl.ops.kept import GRAD_INPUT, Uses, keeps, save
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of both inputs; there is no broadcasting."""
    return expect_same("multiply", shapes)


def uses(needs: Needs) -> Uses:
    """a for gb, b for ga."""
    return {"a": GRAD_INPUT * needs[1], "b": GRAD_INPUT * needs[0]}


def forward(a: Array, b: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = a b; keeps what the gradients use."""
    return np.asarray(a * b), save(uses(needs), a, b)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """ga = gy b, gb = gy a: those that `needs` asks for."""
    return (np.asarray(gy * saved["b"]) if needs[0] else None, np.asarray(gy * saved["a"]) if needs[1] else None)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation per value for y and for each gradient."""
    n, kept = size(shapes[0]), keeps(uses(needs), shapes, dtype, inputs=True)
    return Cost(output=shapes[0], kept=kept, flops=Split(n, (needs[0] + needs[1]) * n))


multiply = Op("multiply", ("a", "b"), Functions(output_shape, forward, backward, cost), activations=2)
