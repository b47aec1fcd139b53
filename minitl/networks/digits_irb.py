"""digits_irb: a small network of inverted residual blocks for images of 24 to 32 pixels, for the demonstration."""

from __future__ import annotations

from minitl.blocks import BlockSpec
from minitl.networks.network import Network, check_options, make_divisible
from minitl.networks.v2_style import v2_style

# expanded, output channels, kernel, stride, SE channels; all Hard-Swish
ROWS = [
    (32, 16, 3, 1, 0),
    (64, 24, 3, 2, 0),
    (72, 24, 3, 1, 0),
    (96, 40, 5, 2, 24),
    (160, 40, 5, 1, 40),
    (160, 48, 5, 1, 40),
    (192, 48, 5, 1, 48),
]


def digits_irb(
    num_classes: int = 10, *, width: float = 1.0, dropout: float = 0.0, dtype: str = "float32", seed: int = 0
) -> Network:
    """7 inverted residual blocks with Hard-Swish, the last four with squeeze-and-excite; names in V2's style.

    Norms have eps 1e-5 and momentum 0.1. Weights are drawn from `seed`.
    """
    check_options("digits_irb", num_classes, width, dropout)
    channels, specs = make_divisible(16 * width), []
    for expanded, outputs, kernel, stride, squeezed in ROWS:
        spec = BlockSpec(
            in_channels=channels,
            expanded_channels=make_divisible(expanded * width),
            out_channels=make_divisible(outputs * width),
            kernel=kernel,
            stride=stride,
            activation="hard_swish",
            se_channels=make_divisible(squeezed * width) if squeezed else 0,
        )
        specs.append(spec)
        channels = spec.out_channels
    return v2_style(
        "digits_irb",
        specs,
        stem_stride=1,
        last=make_divisible(192 * width),
        num_classes=num_classes,
        dropout=dropout,
        dtype=dtype,
        seed=seed,
    )
