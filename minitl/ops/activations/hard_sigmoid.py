"""Hard-sigmoid:  y = relu6(x + 3) / 6,  slope 1/6 where -3 < x < 3, else 0 (at both kinks as well).

The gate of squeeze-and-excite. Backward needs to know whether x is inside: one packed bit an
element, which is exact.
"""

from __future__ import annotations

from typing import Any

from minitl.kernels.formula import maximum, minimum
from minitl.kernels.rules import ABOVE, AT_LEAST, Codes
from minitl.ops.activations.activation import activation


def value(x: Any) -> Any:
    """relu6(x + 3) / 6."""
    return minimum(maximum(x + 3, 0), 6) / 6


hard_sigmoid = activation(
    "hard_sigmoid",
    value,
    {"exact": Codes(1, lambda: (((-3.0, ABOVE), (3.0, AT_LEAST)), (0.0, 1 / 6)))},  # of region 2 the low bit is 0
    flops=4,
)
