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

from typing import Any

from minitl.kernels.formula import indicator, maximum, minimum, sqrt, where
from minitl.kernels.rules import AT_LEAST, Codes, FromInput, FromOutput
from minitl.ops.activations.activation import activation
from minitl.ops.activations.few_bits import hard_swish_levels


def value(x: Any) -> Any:
    """x relu6(x + 3) / 6."""
    return x * minimum(maximum(x + 3, 0), 6) / 6


def slope(x: Any) -> Any:
    """0 where x <= -3, 1 where x >= 3, else (2x + 3) / 6."""
    return where(x <= -3, 0, where(x >= 3, 1, (x * 2 + 3) / 6))


def slope_from_output(y: Any, right: Any) -> Any:
    """The same from y, and from whether x is right of -3/2."""
    root = sqrt(maximum(y * 24 + 9, 0)) / 6
    return where(right, where(y >= 3, 1, root), where(y >= 0, 0, -root))


def sign_of_output(y: Any) -> Any:
    """1 where the sign bit of y is clear, else 0."""
    return indicator(1 / y > 0, y)


def _few(bits: int) -> Codes:
    def find() -> tuple[tuple[tuple[float, bool], ...], tuple[float, ...]]:
        found = hard_swish_levels(bits)
        return tuple((border, AT_LEAST) for border in found.borders), found.levels

    return Codes(bits, find, tensor="codes")


hard_swish = activation(
    "hard_swish",
    value,
    {
        "exact": FromInput(slope, flops=4),
        "output": FromOutput(slope_from_output, flops=5, border=-1.5),
        "sign": Codes(1, lambda: (((0.0, AT_LEAST),), (0.0, 1.0))),
        "output-sign": FromOutput(sign_of_output, flops=1),
        "few1": _few(1),
        "few2": _few(2),
        "few4": _few(4),
    },
    flops=5,
    approximate=("sign", "output-sign", "few1", "few2", "few4"),
)
