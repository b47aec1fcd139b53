"""ReLU:  y = max(x, 0),  slope 1 where x > 0, else 0 (at 0 as well).

Backward rules, both exact:

    exact    1 bit   x > 0
    output   y       slope 1[y > 0]: no mask at all, and no memory where the next convolution keeps y anyway
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.bits import pack, times_level
from minitl.kernels import elementwise
from minitl.ops.op import EXACT, Attrs, Cost, Gradients, Needs, Op, Split, expect_values, keeps_codes, keeps_output
from minitl.saved import Saved

LEVELS = (0.0, 1.0)


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of x (..., C)."""
    return expect_values("relu", shapes[0])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = max(x, 0); keeps one bit an element, or y itself, where gx is wanted."""
    saved = Saved()
    if needs[0] and rule == EXACT:
        mask = pack((x > 0).view(np.uint8), 1)
        saved.keep("mask", mask, ("grad_input",), codes=(x.shape, 1))
    y = np.maximum(x, 0)
    if needs[0] and rule != EXACT:
        saved.keep("y", y, ("grad_input",))
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx = gy where x > 0, else 0."""
    if not needs[0]:
        return (None,)
    if "mask" in saved:
        return (times_level(gy, saved["mask"], 1, LEVELS),)
    return (elementwise.where_inside(gy, saved["y"], np.inf),)


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation an element forward, 1 backward."""
    x = shapes[0]
    kept = keeps_codes("mask", x, 1) if rule == EXACT else keeps_output("y", x, dtype, ("grad_input",))
    return Cost(output=x, kept=(kept,) if needs[0] else (), flops=Split(size(x), needs[0] * size(x)))


relu = Op("relu", ("x",), output_shape, forward, backward, cost, rules=(EXACT, "output"))
