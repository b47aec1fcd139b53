"""Networks put together, and named, as torchvision's MobileNetV2: stem, blocks, 1x1 convolution, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from minitl.blocks import BlockSpec, ConvNorm, ConvSpec, InvertedResidual
from minitl.layers import Dropout, Linear, Pool
from minitl.networks.network import Network, block_paths, build, make_divisible, triple

Row = tuple[int, int, int, int]  # expansion, kernel, output channels, stride


def relu6_blocks(channels: int, rows: Sequence[Row], width: float) -> list[BlockSpec]:
    """The blocks of the rows, on `channels` inputs; an expansion of 1 means no expanding convolution."""
    specs = []
    for expansion, kernel, outputs, stride in rows:
        wide, out = channels * expansion, make_divisible(outputs * width)
        specs.append(BlockSpec(channels, wide, out, kernel, stride, "relu6", expand=expansion != 1))
        channels = out
    return specs


def v2_style(
    name: str,
    specs: Sequence[BlockSpec],
    *,
    stem_stride: int,
    last: int,
    num_classes: int,
    dropout: float,
    dtype: str,
    seed: int,
) -> Network:
    """A network of the blocks given; stem and head have the first and last block's activation.

    Norms have eps 1e-5 and momentum 0.1. `last` is the number of channels of the final 1x1
    convolution.
    """
    make = build(seed, dtype, eps=1e-5, momentum=0.1)
    first, top = specs[0], specs[-1]
    stem_spec = ConvSpec("stem", 3, first.in_channels, 3, stem_stride, activation=first.activation)
    stem = ConvNorm(stem_spec, triple("features.0"), make)
    blocks = []
    for number, spec in enumerate(specs, start=1):
        stages = ("expand", "depthwise", "project") if spec.expand else ("depthwise", "project")
        se_at = len(stages) - 1 if spec.se_channels else -1
        paths = block_paths(f"features.{number}.conv", stages, flat_project=True, se_at=se_at)
        blocks.append(InvertedResidual(spec, paths.__getitem__, make))
    head_spec = ConvSpec("head", top.out_channels, last, activation=top.activation)
    head = ConvNorm(head_spec, triple(f"features.{len(specs) + 1}"), make)
    classifier = (
        Dropout("classifier.0", dropout),
        Linear("classifier.1", last, num_classes, rng=make.rng, dtype=dtype),
    )
    return Network(name, stem, blocks, head, Pool("pool"), classifier, dtype=dtype)
