"""Multiply a map by a gate of one number per sample and channel (the last step of squeeze-and-excite).

y[n, h, w, c] = gate[n, c] x[n, h, w, c]

gx    = gate gy                          needs the gate
ggate = sum of gy x over (h, w)          needs the map
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.kernels import channels
from minitl.ops.expect import expect_factors
from minitl.ops.kept import GRAD_INPUT, Uses, keeps, save
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (N, H, W, C); the gate is (N, 1, 1, C)."""
    return expect_factors("scale", "gate", shapes)


def uses(needs: Needs) -> Uses:
    """x for ggate, the gate for gx."""
    return {"x": GRAD_INPUT * needs[1], "gate": GRAD_INPUT * needs[0]}


def forward(x: Array, gate: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = gate x; keeps what the gradients use."""
    return x * gate, save(uses(needs), x, gate)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = gate gy, ggate = sum gy x: those that `needs` asks for."""
    gx, ggate = gy * saved["gate"] if needs[0] else None, None
    if needs[1]:
        ggate = np.empty((len(gy), 1, 1, gy.shape[3]), gy.dtype)
        channels.sample_dots(gy, saved["x"], ggate[:, 0, 0])
    return gx, ggate


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation per value forward, 1 for gx, 2 for ggate; both gradients are of inputs."""
    (x, gate), n = shapes, size(shapes[0])
    return Cost(
        output=x,
        kept=keeps(uses(needs), shapes, dtype, inputs=True),
        flops=Split(n, (needs[0] + 2 * needs[1]) * n),
        backward_workspace=needs[1] * nbytes(gate, "float64"),  # the sums, before they are rounded
    )


scale = Op("scale", ("x", "gate"), Functions(output_shape, forward, backward, cost), activations=2)
