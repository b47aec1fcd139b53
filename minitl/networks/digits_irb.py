"""digits_irb: a small network of inverted residual blocks for images of 24 to 32 pixels, for the demonstration."""

from __future__ import annotations

from minitl.blocks import BlockSpec, ConvNorm, ConvSpec, InvertedResidual
from minitl.layers import Dropout, Linear, Pool
from minitl.networks.network import Classifier, Network, block_paths, build, check_options, make_divisible, triple

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
    make = build(seed, dtype, eps=1e-5, momentum=0.1)
    channels, last = make_divisible(16 * width), make_divisible(192 * width)
    stem = ConvNorm(ConvSpec("stem", 3, channels, 3, 1, activation="hard_swish"), triple("features.0"), make)
    blocks: list[InvertedResidual] = []
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
        prefix = f"features.{len(blocks) + 1}.conv"
        stages = ("expand", "depthwise", "project")
        paths = block_paths(prefix, stages, flat_project=True, se_at=2 if squeezed else -1)
        blocks.append(InvertedResidual(spec, paths.__getitem__, make))
        channels = spec.out_channels
    top = f"features.{len(blocks) + 1}"
    head = ConvNorm(ConvSpec("head", channels, last, activation="hard_swish"), triple(top), make)
    classifier: list[Classifier] = [
        Dropout("classifier.0", dropout),
        Linear("classifier.1", last, num_classes, rng=make.rng, dtype=dtype),
    ]
    return Network("digits_irb", stem, blocks, head, Pool("pool"), classifier, dtype=dtype)
