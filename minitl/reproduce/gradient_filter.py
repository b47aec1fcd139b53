"""Gradient filtering's figures: memory and FLOPs of training the last convolutions of MobileNetV2 and ResNets.

Yang, Li & Marculescu, "Efficient On-device Training via Gradient Filtering", CVPR 2023,
arXiv:2301.00330, Tables 2 and 11; batch 1, 224 x 224 (CIFAR at the same size). Memory is the input of
each trained convolution in float32, nothing else; with patches of r x r it is one sum per patch of the
output, ceil(H / r) ceil(W / r) numbers per channel. Norms, activations and the classifier are not in
these figures. MobileNetV2's "all" does not follow from its shapes: they give 25.81 MiB.

The paper does not say how its FLOPs are counted. This rule was fitted to them (per pair of channels,
P positions of the gradient, P' of the filtered one):

    plain      gW P (k^2 + 1) - 1       gx 2 k^2 P
    filtered   gW 2 P' - 1              gx 2 P' + k^2 - 1        and r^2 P' per output channel for the means
    classifier 3 C K;  no gx for the lowest trained convolution
"""

from __future__ import annotations

from collections.abc import Sequence

from minitl.networks import mobilenet_v2
from minitl.reproduce.convolutions import Convolution, of_network, of_resnet
from minitl.reproduce.result import CANDIDATE, PUBLISHED, Result

RESOLUTION = 224
MEMORY = {  # network: {trained convolutions: (plain, patches of 2 x 2)}
    "MobileNetV2": {"all": ("24.33", ""), "2": ("245.00", "80.00"), "4": ("459.38", "150.00")},
    "ResNet-18": {"all": ("8.33", ""), "2": ("196.00", "64.00"), "4": ("490.00", "112.00")},
    "ResNet-34": {"all": ("13.11", ""), "2": ("196.00", "64.00"), "4": ("392.00", "128.00")},
}
NOT_FROM_SHAPES = (
    "the inputs of all 52 convolutions; no one or two of them left out give the printed figure, nor do all outputs "
    "(25.47), the 1x1 or the depthwise ones alone (10.96, 14.27), or MB for 1e6 bytes (27.06)"
)
FLOPS = [  # network, trained convolutions, classes, patch (1: none), published millions
    ("MobileNetV2", 2, 1000, 1, "113.68"), ("MobileNetV2", 4, 1000, 1, "160.00"),
    ("MobileNetV2", 2, 1000, 2, "39.27"), ("MobileNetV2", 4, 1000, 2, "53.96"),
    ("ResNet-18", 2, 1000, 1, "489.20"), ("ResNet-18", 2, 1000, 2, "28.32"),
    ("ResNet-18", 1, 10, 1, "128.25"), ("ResNet-18", 1, 10, 7, "0.3031"), ("ResNet-18", 2, 10, 4, "7.93"),
    ("ResNet-34", 3, 10, 1, "847.13"), ("ResNet-34", 4, 100, 2, "64.21"),
]  # fmt: skip


def kept_bytes(convolutions: Sequence[Convolution], patch: int = 1) -> int:
    """Bytes of the inputs kept, or with patches of their sums."""
    if patch == 1:
        return sum(4 * conv.values_in for conv in convolutions)
    return sum(4 * conv.inputs * _patches(conv, patch) for conv in convolutions)


def flops(convolutions: Sequence[Convolution], classes: int, patch: int = 1) -> int:
    """Backward FLOPs of these convolutions and the classifier above them, by the fitted rule."""
    total = 3 * convolutions[-1].outputs * classes
    for number, conv in enumerate(convolutions):
        pairs, taps = conv.inputs * conv.outputs // conv.groups, conv.kernel**2
        positions = _patches(conv, patch)
        if patch == 1:
            weight, above = positions * (taps + 1) - 1, 2 * taps * positions
        else:
            weight, above = 2 * positions - 1, 2 * positions + taps - 1
            total += patch**2 * positions * conv.outputs
        total += pairs * (weight + (above if number else 0))
    return total


def results() -> list[Result]:
    """The 15 memory figures, and the 11 FLOPs by the fitted rule."""
    networks = {
        "MobileNetV2": of_network(mobilenet_v2(), RESOLUTION),
        "ResNet-18": of_resnet((2, 2, 2, 2), RESOLUTION),
        "ResNet-34": of_resnet((3, 4, 6, 3), RESOLUTION),
    }
    rows = [row for name, convs in networks.items() for row in _memory(name, convs)]
    for name, count, classes, patch, published in FLOPS:
        quantity = f"backward FLOPs, {name}, last {count}, {classes} classes{_filtered(patch)}"
        computed = flops(networks[name][-count:], classes, patch) / 1e6
        fit = "a rule fitted to them"
        rows.append(Result("gradient-filter", quantity, "M", published, computed, fit, CANDIDATE, within=0.002))
    return rows


def _memory(name: str, convolutions: Sequence[Convolution]) -> list[Result]:
    rows = []
    for count, figures in MEMORY[name].items():
        trained = convolutions if count == "all" else convolutions[-int(count) :]
        unit, scale = ("MiB", 2**20) if count == "all" else ("KiB", 2**10)
        for patch, published in zip((1, 2), figures, strict=True):
            if published:
                quantity = f"kept, {name}, {'all' if count == 'all' else f'last {count}'}{_filtered(patch)}"
                computed = kept_bytes(trained, patch) / scale
                note = NOT_FROM_SHAPES if (name, count) == ("MobileNetV2", "all") else ""
                counted = "inputs of convolutions"
                rows.append(Result("gradient-filter", quantity, unit, published, computed, counted, PUBLISHED, 0, note))
    return rows


def _filtered(patch: int) -> str:
    return f", patches of {patch}" if patch > 1 else ""


def _patches(conv: Convolution, patch: int) -> int:
    """Patches of a square output, those at the border cut off."""
    return (-(-conv.side_out // patch)) ** 2
