"""ReLU:  y = max(x, 0),  slope 1 where x > 0, else 0 (at 0 as well).

Backward rules, both exact:

    exact    1 bit   x > 0
    output   y       slope 1[y > 0]: no mask at all, and no memory where the next convolution keeps y anyway
"""

from __future__ import annotations

from typing import Any

from minitl.kernels.formula import indicator, maximum
from minitl.kernels.rules import ABOVE, Codes, FromOutput
from minitl.ops.activations.activation import activation


def value(x: Any) -> Any:
    """max(x, 0)."""
    return maximum(x, 0)


def slope_from_output(y: Any) -> Any:
    """1 where y > 0, else 0."""
    return indicator(y > 0, y)


relu = activation(
    "relu",
    value,
    {"exact": Codes(1, lambda: (((0.0, ABOVE),), (0.0, 1.0))), "output": FromOutput(slope_from_output, flops=1)},
    flops=1,
)
