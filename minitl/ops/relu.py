"""ReLU:  y = max(x, 0),  slope 1 where x > 0, else 0 (at 0 as well).

Backward needs to know the side of zero: one bit an element, packed, which is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.bits import pack, times_level
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, expect_values, keeps_codes
from minitl.saved import Saved

LEVELS = (0.0, 1.0)


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of x (..., C)."""
    return expect_values("relu", shapes[0])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = max(x, 0); keeps one bit an element where gx is wanted."""
    saved = Saved()
    if needs[0]:
        mask = pack((x > 0).view(np.uint8), 1)
        saved.keep("mask", mask, ("grad_input",), codes=(x.shape, 1))
    return np.maximum(x, 0), saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx = gy where x > 0, else 0."""
    return (times_level(gy, saved["mask"], 1, LEVELS) if needs[0] else None,)


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation an element forward, 1 backward."""
    x = shapes[0]
    kept = (keeps_codes("mask", x, 1),) if needs[0] else ()
    return Cost(output=x, kept=kept, flops=Split(size(x), needs[0] * size(x)))


relu = Op("relu", ("x",), output_shape, forward, backward, cost)
