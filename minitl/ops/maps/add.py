"""Add (the residual, or two losses):  y = a + b,  ga = gb = gy. Nothing is kept, and no new gradient array is made."""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.ops.expect import expect_same
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of both inputs; there is no broadcasting."""
    return expect_same("add", shapes)


def forward(a: Array, b: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = a + b; keeps nothing."""
    return np.asarray(a + b), Saved()  # NumPy's sum of two arrays of no axes is no array


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gy itself for each input that wants a gradient."""
    return (gy if needs[0] else None, gy if needs[1] else None)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation per value forward."""
    return Cost(output=shapes[0], flops=Split(size(shapes[0])), passes_gradient=True)


add = Op("add", ("a", "b"), Functions(output_shape, forward, backward, cost), activations=2)
