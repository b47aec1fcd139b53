"""Multiply two maps of one shape:  y = a b,  ga = gy b,  gb = gy a. Each factor is kept for the other's gradient."""

from __future__ import annotations

from minitl.arrays import Array, Shape, size
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, expect_same, keeps_input
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of both inputs; there is no broadcasting."""
    return expect_same("multiply", shapes)


def forward(a: Array, b: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = a b; keeps b for ga and a for gb."""
    saved = Saved()
    if needs[1]:
        saved.keep("a", a, ("grad_input",))
    if needs[0]:
        saved.keep("b", b, ("grad_input",))
    return a * b, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """ga = gy b, gb = gy a: those that `needs` asks for."""
    return (gy * saved["b"] if needs[0] else None, gy * saved["a"] if needs[1] else None)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation per value for y and for each gradient."""
    a, b = shapes
    of_a, of_b = keeps_input("a", 0, a, dtype, ("grad_input",)), keeps_input("b", 1, b, dtype, ("grad_input",))
    kept = (of_a,) * needs[1] + (of_b,) * needs[0]
    return Cost(output=a, kept=kept, flops=Split(size(a), (needs[0] + needs[1]) * size(a)))


multiply = Op("multiply", ("a", "b"), Functions(output_shape, forward, backward, cost), activations=2)
