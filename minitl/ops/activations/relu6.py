"""ReLU6:  y = min(max(x, 0), 6),  slope 1 where 0 < x < 6, else 0 (at both kinks as well).

Backward rules:

    codes    2 bits  the region: 0 (x <= 0), 1 (between), 2 (x >= 6); exact, the paper's baseline
    band     1 bit   0 < x < 6; exact as well
    output   y       slope 1[0 < y < 6]: no mask at all, and no memory where the next convolution keeps y anyway
    sign     1 bit   gx = gy 1[x >= 0]: MobileTL's, approximate (wrong where x >= 6, and at 0)
"""

from __future__ import annotations

from typing import Any

from minitl.kernels.formula import indicator, maximum, minimum, where
from minitl.kernels.rules import ABOVE, AT_LEAST, Codes, FromOutput
from minitl.ops.activations.activation import activation

REGIONS = ((0.0, ABOVE), (6.0, AT_LEAST))


def value(x: Any) -> Any:
    """min(max(x, 0), 6)."""
    return minimum(maximum(x, 0), 6)


def slope_from_output(y: Any) -> Any:
    """1 where 0 < y < 6, else 0."""
    return where(y > 0, indicator(y < 6, y), 0)


relu6 = activation(
    "relu6",
    value,
    {
        "codes": Codes(2, lambda: (REGIONS, (0.0, 1.0, 0.0, 0.0))),
        "band": Codes(1, lambda: (REGIONS, (0.0, 1.0))),  # of region 2 the low bit is 0
        "output": FromOutput(slope_from_output, flops=1),
        "sign": Codes(1, lambda: (((0.0, AT_LEAST),), (0.0, 1.0))),
    },
    flops=2,
    approximate=("sign",),
)
