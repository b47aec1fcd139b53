"""Hard-Swish:  y = x relu6(x + 3) / 6, in that order of operations (Howard et al. 2019, arXiv:1905.02244).

    slope h'(x) = 0 where x <= -3,  1 where x >= 3,  else (2x + 3) / 6

It runs from -1/2 to 3/2 and jumps at both kinks. Backward rules:

    exact         x          gx = gy h'(x); the paper's baseline
    output        y, 1 bit   exact as well, and y is free of charge where the next convolution keeps it
    sign          1 bit      gx = gy 1[x >= 0]; MobileTL's
    output-sign   y          the same from y's sign bit, which is clear exactly where x >= 0 (but at x = -0.0)
    few1,2,4      1-4 bits   gx = gy level[interval of x]; see `few_bits`

**output.** With s = [x >= -3/2] kept as a bit, x = (-3 +- sqrt(9 + 24 y)) / 2, + where s, and so
h' = +- sqrt(9 + 24 y) / 6; 1 where y >= 3; 0 where y = 0 and not s (x <= -3). The radicand is
clamped at 0. Where h' = 0, at x = -3/2, the root magnifies the rounding of y: an error of u in y
is one of sqrt(24 u |y|) / 6 in h', at most 1.3e-4 in float32 and 5e-9 in float64; elsewhere it
is a few u.

**sign** and **few** are not the derivative. The sign rule is off by at most 1/2, and by nothing
outside (-3, 3); of all two-valued functions of x, it is the nearest to h' in squared error on
any [-A, A], A >= 3. (Chiang et al. 2023, arXiv:2212.03246.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.bits import pack, times_level
from minitl.kernels import elementwise
from minitl.ops.few_bits import hard_swish_levels
from minitl.ops.op import (
    EXACT,
    Attrs,
    Cost,
    Gradients,
    Needs,
    Op,
    Split,
    expect_values,
    keeps_codes,
    keeps_input,
    keeps_output,
)
from minitl.saved import Saved

FROM_OUTPUT = ("output", "output-sign")
MASKS = {"output": -1.5, "sign": 0.0}  # the bit says whether x is at least this
FEW = {"few1": 1, "few2": 2, "few4": 4}  # bits


def output_shape(shapes: Sequence[Shape], attrs: Attrs) -> Shape:
    """That of x (..., C)."""
    return expect_values("hard_swish", shapes[0])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y = x relu6(x + 3) / 6; keeps what the rule needs where gx is wanted."""
    saved = Saved()
    if needs[0]:
        if rule == EXACT:
            saved.keep("x", x, ("grad_input",))
        if rule in MASKS:
            saved.keep("mask", pack((x >= MASKS[rule]).view(np.uint8), 1), ("grad_input",), codes=(x.shape, 1))
        if rule in FEW:
            codes = elementwise.encode(x, np.array(hard_swish_levels(FEW[rule]).borders))
            saved.keep("codes", pack(codes, FEW[rule]), ("grad_input",), codes=(x.shape, FEW[rule]))
            del codes
    y = np.empty_like(x)
    elementwise.hard_swish(x.reshape(-1), y.reshape(-1))
    if needs[0] and rule in FROM_OUTPUT:
        saved.keep("y", y, ("grad_input",))
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx = gy times the slope, or the rule's stand-in for it."""
    if not needs[0]:
        return (None,)
    if "codes" in saved:
        bits = saved.buffers["codes"].bits
        return (times_level(gy, saved["codes"], bits, hard_swish_levels(bits).levels),)
    if "y" in saved and "mask" in saved:
        return (elementwise.hard_swish_backward_from_output(saved["y"], saved["mask"], gy),)
    if "y" in saved:
        return (elementwise.where_positive_sign(gy, saved["y"]),)
    if "mask" in saved:
        return (times_level(gy, saved["mask"], 1, (0.0, 1.0)),)
    gx = np.empty_like(gy)
    elementwise.hard_swish_backward(saved["x"].reshape(-1), gy.reshape(-1), gx.reshape(-1))
    return (gx,)


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """5 operations an element forward; backward 4 from x, 5 from y, else 1."""
    x, kept = shapes[0], []
    if rule == EXACT:
        kept.append(keeps_input("x", 0, x, dtype, ("grad_input",)))
    if rule in MASKS:
        kept.append(keeps_codes("mask", x, 1))
    if rule in FEW:
        kept.append(keeps_codes("codes", x, FEW[rule]))
    if rule in FROM_OUTPUT:
        kept.append(keeps_output("y", x, dtype, ("grad_input",)))
    backward = {EXACT: 4, "output": 5}.get(rule, 1)
    return Cost(output=x, kept=tuple(kept) if needs[0] else (), flops=Split(5 * size(x), needs[0] * backward * size(x)))


hard_swish = Op(
    "hard_swish",
    ("x",),
    output_shape,
    forward,
    backward,
    cost,
    rules=(EXACT, "output", "sign", "output-sign", *FEW),
    approximate=("sign", "output-sign", *FEW),
)
