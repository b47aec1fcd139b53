"""Sigmoid:  y = 1 / (1 + exp(-x)),  slope y (1 - y).

A gate of squeeze-and-excite (EfficientNet's). Backward rule:

    exact    y       the slope is made of the output, so x is not kept
"""

from __future__ import annotations

from typing import Any

from minitl.kernels.formula import exp
from minitl.kernels.rules import FromOutput
from minitl.ops.activations.activation import activation


def value(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + exp(-x))


def slope_from_output(y: Any) -> Any:
    """y (1 - y)."""
    return y * (1 - y)


sigmoid = activation("sigmoid", value, {"exact": FromOutput(slope_from_output, flops=3)}, flops=3)
