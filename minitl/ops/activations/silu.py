"""SiLU (Swish):  y = x s(x) with the sigmoid s,  slope s (1 + x (1 - s)) (Elfwing et al. 2018, arXiv:1702.03118).

Backward rules:

    exact    x       gx = gy s (1 + x (1 - s)); the sigmoid is made again
    sign     1 bit   gx = gy 1[x >= 0], MobileTL's rule for Hard-Swish, of which this is the smooth form; approximate

y does not tell x (it falls, then rises), so there is no rule from the output.
"""

from __future__ import annotations

from typing import Any

from minitl.kernels.formula import exp
from minitl.kernels.rules import AT_LEAST, Codes, FromInput
from minitl.ops.activations.activation import activation


def value(x: Any) -> Any:
    """x / (1 + exp(-x))."""
    return x / (1 + exp(-x))


def slope(x: Any) -> Any:
    """s (1 + x (1 - s)) with s = 1 / (1 + exp(-x))."""
    s = 1 / (1 + exp(-x))
    return s * (1 + x * (1 - s))


silu = activation(
    "silu",
    value,
    {"exact": FromInput(slope, flops=8), "sign": Codes(1, lambda: (((0.0, AT_LEAST),), (0.0, 1.0)))},
    flops=3,
    approximate=("sign",),
)
