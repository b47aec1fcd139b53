"""MobileNetV3, Small and Large (Howard et al. 2019, arXiv:1905.02244), as torchvision defines them."""

from __future__ import annotations

from minitl.blocks import BlockSpec, ConvNorm, ConvSpec, InvertedResidual
from minitl.layers import Activation, Dropout, Linear, Pool
from minitl.networks.network import Classifier, Network, block_paths, build, check_options, make_divisible, triple

Row = tuple[int, int, int, bool, str, int]  # kernel, expanded, output channels, SE, activation, stride

SMALL: list[Row] = [
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
]
LARGE: list[Row] = [
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
]


def mobilenet_v3_small(
    num_classes: int = 1000, *, width: float = 1.0, dropout: float = 0.2, dtype: str = "float32", seed: int = 0
) -> Network:
    """11 inverted residual blocks; norms with eps 1e-3 and momentum 0.01.

    State dict names and shapes are torchvision's `mobilenet_v3_small(width_mult=width)`.
    Weights are drawn from `seed`.
    """
    return _mobilenet_v3("mobilenet_v3_small", SMALL, 1024, num_classes, width, dropout, dtype, seed)


def mobilenet_v3_large(
    num_classes: int = 1000, *, width: float = 1.0, dropout: float = 0.2, dtype: str = "float32", seed: int = 0
) -> Network:
    """15 inverted residual blocks; norms with eps 1e-3 and momentum 0.01.

    State dict names and shapes are torchvision's `mobilenet_v3_large(width_mult=width)`.
    Weights are drawn from `seed`.
    """
    return _mobilenet_v3("mobilenet_v3_large", LARGE, 1280, num_classes, width, dropout, dtype, seed)


def _mobilenet_v3(
    name: str, rows: list[Row], last: int, num_classes: int, width: float, dropout: float, dtype: str, seed: int
) -> Network:
    check_options(name, num_classes, width, dropout)
    make = build(seed, dtype, eps=1e-3, momentum=0.01)
    channels = make_divisible(16 * width)
    stem = ConvNorm(ConvSpec("stem", 3, channels, 3, 2, activation="hard_swish"), triple("features.0"), make)
    blocks: list[InvertedResidual] = []
    for kernel, expanded, outputs, squeeze, activation, stride in rows:
        wide = make_divisible(expanded * width)
        spec = BlockSpec(
            in_channels=channels,
            expanded_channels=wide,
            out_channels=make_divisible(outputs * width),
            kernel=kernel,
            stride=stride,
            activation=activation,
            se_channels=make_divisible(wide // 4) if squeeze else 0,
            expand=wide != channels,
        )
        stages = ("expand", "depthwise", "project") if spec.expand else ("depthwise", "project")
        se_at = len(stages) - 1 if squeeze else -1
        paths = block_paths(f"features.{len(blocks) + 1}.block", stages, flat_project=False, se_at=se_at)
        blocks.append(InvertedResidual(spec, paths.__getitem__, make))
        channels = spec.out_channels
    wide, last = 6 * channels, make_divisible(last * width)
    head = ConvNorm(
        ConvSpec("head", channels, wide, activation="hard_swish"), triple(f"features.{len(rows) + 1}"), make
    )
    classifier: list[Classifier] = [
        Linear("classifier.0", wide, last, rng=make.rng, dtype=dtype, final=False),
        Activation("classifier.1", "classifier_act", "hard_swish"),
        Dropout("classifier.2", dropout),
        Linear("classifier.3", last, num_classes, rng=make.rng, dtype=dtype),
    ]
    return Network(name, stem, blocks, head, Pool("avgpool"), classifier, dtype=dtype)
