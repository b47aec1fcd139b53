"""ReLU6:  y = min(max(x, 0), 6),  slope 1 where 0 < x < 6, else 0 (at 0 and 6 as well).

Backward rules: from codes packed at forward, each of which stands for a slope, or from the output:

    codes   2 bits  0: x <= 0, 1: between, 2: x >= 6       exact; the paper's baseline
    band    1 bit   1: 0 < x < 6                           exact; the region is all the slope needs
    output  y       0 < y < 6                              exact; no memory where the next convolution keeps y
    sign    1 bit   1: x >= 0                              MobileTL's: gx = gy 1[x >= 0]; wrong for x >= 6 and at 0

(Chiang et al. 2023, arXiv:2212.03246, "signed function" backward.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.bits import pack, times_level
from minitl.kernels import elementwise
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Split, expect_values, keeps_codes, keeps_output
from minitl.saved import Saved

BITS = {"codes": 2, "band": 1, "sign": 1}


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of x (..., C)."""
    return expect_values("relu6", shapes[0])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = min(max(x, 0), 6); keeps the rule's codes, or y, where gx is wanted."""
    saved = Saved()
    if needs[0] and rule in BITS:
        packed = pack(_codes(x, rule), BITS[rule])
        saved.keep(_tensor(rule), packed, ("grad_input",), codes=(x.shape, BITS[rule]))
    y = np.clip(x, 0, 6)
    if needs[0] and rule not in BITS:
        saved.keep("y", y, ("grad_input",))
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx = gy times the slope of the code."""
    if not needs[0]:
        return (None,)
    if "codes" in saved:
        return (times_level(gy, saved["codes"], 2, (0.0, 1.0, 0.0, 0.0)),)
    if "mask" in saved:
        return (times_level(gy, saved["mask"], 1, (0.0, 1.0)),)
    return (elementwise.where_inside(gy, saved["y"], 6.0),)


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """2 operations an element forward, 1 backward."""
    x = shapes[0]
    codes = rule in BITS
    kept = keeps_codes(_tensor(rule), x, BITS[rule]) if codes else keeps_output("y", x, dtype, ("grad_input",))
    return Cost(output=x, kept=(kept,) if needs[0] else (), flops=Split(2 * size(x), needs[0] * size(x)))


def _codes(x: Array, rule: str) -> Array:
    if rule == "codes":
        return (x > 0).view(np.uint8) + (x >= 6).view(np.uint8)
    if rule == "band":
        return ((x > 0) & (x < 6)).view(np.uint8)
    return (x >= 0).view(np.uint8)


def _tensor(rule: str) -> str:
    return "codes" if rule == "codes" else "mask"


relu6 = Op(
    "relu6",
    ("x",),
    output_shape,
    forward,
    backward,
    cost,
    rules=("codes", "band", "output", "sign"),
    approximate=("sign",),
)
