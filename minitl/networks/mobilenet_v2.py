"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), as torchvision defines it."""

from __future__ import annotations

from minitl.blocks import BlockSpec, ConvNorm, ConvSpec, InvertedResidual
from minitl.layers import Dropout, Linear, Pool
from minitl.networks.network import Classifier, Network, block_paths, build, check_options, make_divisible, triple

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
    make = build(seed, dtype, eps=1e-5, momentum=0.1)
    channels, last = make_divisible(32 * width), make_divisible(1280 * max(1.0, width))
    stem = ConvNorm(ConvSpec("stem", 3, channels, 3, 2, activation="relu6"), triple("features.0"), make)
    blocks: list[InvertedResidual] = []
    for expansion, outputs, repeats, first_stride in STAGES:
        for repeat in range(repeats):
            spec = BlockSpec(
                in_channels=channels,
                expanded_channels=channels * expansion,
                out_channels=make_divisible(outputs * width),
                kernel=3,
                stride=first_stride if repeat == 0 else 1,
                activation="relu6",
                expand=expansion != 1,
            )
            stages = ("expand", "depthwise", "project") if spec.expand else ("depthwise", "project")
            paths = block_paths(f"features.{len(blocks) + 1}.conv", stages, flat_project=True, se_at=-1)
            blocks.append(InvertedResidual(spec, paths.__getitem__, make))
            channels = spec.out_channels
    top = f"features.{len(blocks) + 1}"
    head = ConvNorm(ConvSpec("head", channels, last, activation="relu6"), triple(top), make)
    classifier: list[Classifier] = [
        Dropout("classifier.0", dropout),
        Linear("classifier.1", last, num_classes, rng=make.rng, dtype=dtype),
    ]
    return Network("mobilenet_v2", stem, blocks, head, Pool("pool"), classifier, dtype=dtype)
