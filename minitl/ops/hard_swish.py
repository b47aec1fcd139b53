"""Hard-Swish:  y = x relu6(x + 3) / 6, in that order of operations (Howard et al. 2019, arXiv:1905.02244).

    slope h'(x) = 0 where x <= -3,  1 where x >= 3,  else (2x + 3) / 6

It runs from -1/2 to 3/2 and jumps at both kinks. Backward rules:

    exact   keeps x whole (32 or 64 bits)          gx = gy h'(x); the paper's baseline
    sign    keeps 1 bit: x >= 0                    gx = gy 1[x >= 0]; MobileTL's

The sign rule is not the derivative: it is off by at most 1/2, and by nothing outside (-3, 3).
Of all two-valued functions of x, it is the nearest to h' in squared error on any [-A, A], A >= 3.
(Chiang et al. 2023, arXiv:2212.03246.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.bits import pack, times_level
from minitl.kernels import elementwise
from minitl.ops.op import EXACT, Attrs, Cost, Gradients, Needs, Op, Split, expect_values, keeps_codes, keeps_input
from minitl.saved import Saved


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of x (..., C)."""
    return expect_values("hard_swish", shapes[0])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = x relu6(x + 3) / 6; keeps x or its signs where gx is wanted."""
    saved = Saved()
    if needs[0] and rule == EXACT:
        saved.keep("x", x, ("grad_input",))
    elif needs[0]:
        saved.keep("mask", pack((x >= 0).view(np.uint8), 1), ("grad_input",), codes=(x.shape, 1))
    y = np.empty_like(x)
    elementwise.hard_swish(x.reshape(-1), y.reshape(-1))
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx = gy h'(x), or gy where x >= 0."""
    if not needs[0]:
        return (None,)
    if "mask" in saved:
        return (times_level(gy, saved["mask"], 1, (0.0, 1.0)),)
    gx = np.empty_like(gy)
    elementwise.hard_swish_backward(saved["x"].reshape(-1), gy.reshape(-1), gx.reshape(-1))
    return (gx,)


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """5 operations an element forward; backward 4 exact, 1 with the sign rule."""
    x, signs = shapes[0], rule != EXACT
    kept = keeps_codes("mask", x, 1) if signs else keeps_input("x", 0, x, dtype, ("grad_input",))
    return Cost(
        output=x,
        kept=(kept,) if needs[0] else (),
        flops=Split(5 * size(x), needs[0] * (1 if signs else 4) * size(x)),
    )


hard_swish = Op(
    "hard_swish", ("x",), output_shape, forward, backward, cost, rules=(EXACT, "sign"), approximate=("sign",)
)
