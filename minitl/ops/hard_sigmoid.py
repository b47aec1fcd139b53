"""Hard-sigmoid:  y = relu6(x + 3) / 6,  slope 1/6 where -3 < x < 3, else 0 (at both kinks as well).

The gate of squeeze-and-excite. Backward needs to know whether x is inside: one packed bit an
element, which is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.bits import pack, times_level
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, expect_values, keeps_codes
from minitl.saved import Saved


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of x (..., C)."""
    return expect_values("hard_sigmoid", shapes[0])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = relu6(x + 3) / 6; keeps one bit an element where gx is wanted."""
    saved = Saved()
    if needs[0]:
        mask = pack(((x > -3) & (x < 3)).view(np.uint8), 1)
        saved.keep("mask", mask, ("grad_input",), codes=(x.shape, 1))
    y = x + x.dtype.type(3)
    np.clip(y, 0, 6, out=y)
    y /= 6
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx = gy / 6 where -3 < x < 3, else 0."""
    return (times_level(gy, saved["mask"], 1, (0.0, 1 / 6)) if needs[0] else None,)


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """4 operations an element forward, 1 backward."""
    x = shapes[0]
    kept = (keeps_codes("mask", x, 1),) if needs[0] else ()
    return Cost(output=x, kept=kept, flops=Split(4 * size(x), needs[0] * size(x)))


hard_sigmoid = Op("hard_sigmoid", ("x",), output_shape, forward, backward, cost)
