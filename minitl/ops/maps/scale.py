"""Multiply a map by a gate of one number per sample and channel (the last step of squeeze-and-excite).

y[n, h, w, c] = gate[n, c] x[n, h, w, c]

gx    = gate gy                          needs the gate
ggate = sum of gy x over (h, w)          needs the map
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.kernels import channels
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, expect_factors, keeps_input
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (N, H, W, C); the gate is (N, 1, 1, C)."""
    return expect_factors("scale", "gate", shapes)


def forward(x: Array, gate: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = gate x; keeps the gate for gx and x for ggate."""
    saved = Saved()
    if needs[1]:
        saved.keep("x", x, ("grad_input",))
    if needs[0]:
        saved.keep("gate", gate, ("grad_input",))
    return x * gate, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = gate gy, ggate = sum gy x: those that `needs` asks for."""
    gx = ggate = None
    if needs[0]:
        gx = gy * saved["gate"]
    if needs[1]:
        ggate = np.empty((len(gy), 1, 1, gy.shape[3]), gy.dtype)
        channels.sample_dots(gy, saved["x"], ggate[:, 0, 0])
    return gx, ggate


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation per value forward, 1 for gx, 2 for ggate; both gradients are of inputs."""
    x, gate = shapes
    of_x, of_gate = keeps_input("x", 0, x, dtype, ("grad_input",)), keeps_input("gate", 1, gate, dtype, ("grad_input",))
    kept = (of_x,) * needs[1] + (of_gate,) * needs[0]
    return Cost(output=x, kept=kept, flops=Split(size(x), (needs[0] + 2 * needs[1]) * size(x)))


scale = Op("scale", ("x", "gate"), Functions(output_shape, forward, backward, cost), activations=2)
