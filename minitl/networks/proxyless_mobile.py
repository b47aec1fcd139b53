"""ProxylessNAS-Mobile (Cai, Zhu & Han 2019, arXiv:1812.00332): kernels of 3, 5 and 7 found by search."""

from __future__ import annotations

from minitl.networks.network import Network, check_options, make_divisible
from minitl.networks.v2_style import relu6_blocks, v2_style

# output channels, first stride, and (expansion, kernel) of each block
STAGES = [
    (16, 1, [(1, 3)]),
    (32, 2, [(3, 5), (3, 3)]),
    (40, 2, [(3, 7), (3, 3), (3, 5), (3, 5)]),
    (80, 2, [(6, 7), (3, 5), (3, 5), (3, 5)]),
    (96, 1, [(6, 5), (3, 5), (3, 5), (3, 5)]),
    (192, 2, [(6, 7), (6, 7), (3, 7), (3, 7)]),
    (320, 1, [(6, 7)]),
]


def proxyless_mobile(
    num_classes: int = 1000, *, width: float = 1.0, dropout: float = 0.0, dtype: str = "float32", seed: int = 0
) -> Network:
    """20 inverted residual blocks with ReLU6; norms with eps 1e-5 and momentum 0.1.

    State dict names follow MobileNetV2's style. Weights are drawn from `seed`.
    """
    check_options("proxyless_mobile", num_classes, width, dropout)
    rows = [
        (expansion, kernel, outputs, stride if place == 0 else 1)
        for outputs, stride, blocks in STAGES
        for place, (expansion, kernel) in enumerate(blocks)
    ]
    return v2_style(
        "proxyless_mobile",
        relu6_blocks(make_divisible(32 * width), rows, width),
        stem_stride=2,
        last=make_divisible(1280 * max(1.0, width)),
        num_classes=num_classes,
        dropout=dropout,
        dtype=dtype,
        seed=seed,
    )
