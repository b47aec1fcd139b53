"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), as torchvision defines it."""

from __future__ import annotations

from minitl.networks.network import Network, check_options, make_divisible
from minitl.networks.v2_style import relu6_blocks, v2_style

# expansion, output channels, repeats, first stride; all 3x3
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def mobilenet_v2(
    num_classes: int = 1000, *, width: float = 1.0, dropout: float = 0.2, dtype: str = "float32", seed: int = 0
) -> Network:
    """17 inverted residual blocks with ReLU6; norms with eps 1e-5 and momentum 0.1.

    State dict names and shapes are torchvision's `mobilenet_v2(width_mult=width)`. Weights are
    drawn from `seed`.
    """
    check_options("mobilenet_v2", num_classes, width, dropout)
    rows = [(t, 3, outputs, stride if i == 0 else 1) for t, outputs, n, stride in STAGES for i in range(n)]
    return v2_style(
        "mobilenet_v2",
        relu6_blocks(make_divisible(32 * width), rows, width),
        stem_stride=2,
        last=make_divisible(1280 * max(1.0, width)),
        num_classes=num_classes,
        dropout=dropout,
        dtype=dtype,
        seed=seed,
    )
