"""MCUNetV3's sparse update: the training memory of its fifteen shipped schemes.

Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022, arXiv:2206.15472; networks, schemes and
counting rule are those of its source, mit-han-lab/tiny-training (`compilation/mcu_ir_gen.py`,
`algorithm/core/utils/partial_backward.py`). Images of 128 x 128, batch 1, 8-bit activations:

    the top `biases` convolutions     1 bit per output (the clamp of the quantiser); biases at 32 bits
    of those, the ones in `weights`   besides, int(share * inputs) whole input channels at 8 bits, and the
                                      weights that read them at 8 bits
    the classifier                    its input at 8 bits; its own parameters count nothing

The schemes are named by this sum; its larger part is parameters. Convolutions are numbered from 0
at the stem.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from minitl.blocks import BlockSpec
from minitl.networks import mobilenet_v2
from minitl.reproduce.convolutions import Convolution, of_blocks
from minitl.reproduce.result import REDERIVED, Result

RESOLUTION, BITS = 128, 8
STEM = Convolution(3, RESOLUTION, 16, RESOLUTION // 2, 3)  # of all three networks

# expanded channels (those coming in: no expanding convolution), kernel, output channels, stride
MCUNET = [
    (16, 3, 8, 1), (32, 3, 16, 2), (48, 3, 16, 1), (48, 7, 24, 2), (120, 3, 24, 1), (120, 3, 40, 2), (160, 7, 40, 1),
    (160, 5, 48, 1), (144, 3, 48, 1), (192, 3, 48, 1), (240, 7, 96, 2), (384, 5, 96, 1), (384, 5, 96, 1),
    (576, 3, 160, 1),
]  # fmt: skip
PROXYLESS = [
    (16, 3, 8, 1), (24, 5, 16, 2), (48, 3, 16, 1), (48, 7, 16, 2), (48, 3, 16, 1), (48, 5, 16, 1), (48, 5, 16, 1),
    (96, 7, 24, 2), (72, 5, 24, 1), (72, 5, 24, 1), (72, 5, 24, 1), (144, 5, 32, 1), (96, 5, 32, 1), (96, 5, 32, 1),
    (96, 5, 32, 1), (192, 7, 64, 2), (384, 7, 64, 1), (192, 7, 64, 1), (192, 7, 64, 1), (384, 7, 96, 1),
]  # fmt: skip


class Scheme(NamedTuple):
    """How many convolutions train their bias, from the top; which train weights, and on what share of their inputs.

    `kib` is the scheme's name; `exact` the bytes that the published profiler prints.
    """

    kib: str
    exact: str
    biases: int
    weights: dict[int, float]


SCHEMES = {
    "mcunet": [
        Scheme("49", "50944", 20, {24: 0.25, 27: 0.5, 30: 0.5}),
        Scheme("74", "76608", 21, {21: 1, 24: 1, 27: 0.5, 30: 1}),
        Scheme("99", "102240", 22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 0.125, 39: 0.25}),
        Scheme("124", "127968", 24, {21: 0.25, 24: 1, 27: 1, 30: 1, 33: 0.5, 39: 0.5}),
        Scheme("148", "151968", 23, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1, 39: 0.5}),
    ],
    "mbv2": [
        Scheme("49", "51002", 16, {36: 1, 39: 1, 41: 0.25, 42: 0.125, 45: 0.125, 48: 0.125, 49: 0.125}),
        Scheme("73", "75648", 20, {32: 0.125, 33: 0.5, 36: 0.5, 39: 1, 41: 0.25, 42: 0.125, 45: 0.125, 48: 1}),
        Scheme("99", "101792", 25, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 0.125, 45: 0.5, 48: 1}),
        Scheme("123", "126528", 31, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 0.5, 45: 1, 48: 1}),
        Scheme("138", "141568", 34, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 1, 45: 1, 48: 1}),
    ],
    "proxyless": [
        Scheme("49", "50848", 21, {39: 0.25, 42: 1, 45: 1, 51: 0.125, 54: 0.25, 57: 0.25}),
        Scheme("74", "76672", 28, {33: 0.5, 36: 0.25, 39: 1, 42: 1, 45: 1, 51: 0.5, 54: 0.25, 57: 0.5}),
        Scheme("98", "100896", 25, {36: 1, 39: 0.5, 42: 1, 45: 1, 48: 0.25, 51: 0.5, 54: 1, 57: 1}),
        Scheme("120", "123136", 32, {36: 1, 39: 1, 42: 1, 45: 1, 48: 0.5, 51: 1, 54: 1, 57: 1}),
        Scheme("148", "151776", 45, {36: 1, 39: 1, 42: 1, 45: 1, 48: 1, 51: 1, 54: 1, 57: 1}),
    ],
}


def memory_bytes(convolutions: list[Convolution], scheme: Scheme) -> int:
    """Activations saved for backward and trained parameters, by the rule above."""
    bits = BITS * convolutions[-1].outputs
    for number in range(len(convolutions) - scheme.biases, len(convolutions)):
        conv = convolutions[number]
        channels = int(conv.inputs * scheme.weights.get(number, 0))
        weights = channels * conv.kernel**2 * (conv.outputs // conv.groups)
        bits += conv.values_out + BITS * channels * conv.side_in**2 + 32 * conv.outputs + BITS * weights
    return bits // 8


def convolutions(name: str) -> list[Convolution]:
    """The convolutions of one of the three networks; none has a final 1x1 convolution."""
    if name == "mbv2":
        specs = [block.spec for block in mobilenet_v2(width=0.35).blocks]
    else:
        specs = list(_blocks({"mcunet": MCUNET, "proxyless": PROXYLESS}[name]))
    return [STEM, *of_blocks(specs, STEM.side_out)]


def results() -> list[Result]:
    """Each scheme's name in KiB, and its exact bytes."""
    rows = []
    for name, schemes in SCHEMES.items():
        shapes = convolutions(name)
        for scheme in schemes:
            found, quantity = memory_bytes(shapes, scheme), f"training memory, {name} {scheme.kib}kb"
            rows.append(Result("sparse-update", quantity, "KiB", scheme.kib, found / 1024, "tiny-training's profiler"))
            rows.append(Result("sparse-update", quantity, "bytes", scheme.exact, found, "exact bytes", REDERIVED))
    return sorted(rows, key=lambda row: row.kind == REDERIVED)


def _blocks(rows: list[tuple[int, int, int, int]]) -> Iterator[BlockSpec]:
    channels = STEM.outputs
    for expanded, kernel, outputs, stride in rows:
        yield BlockSpec(channels, expanded, outputs, kernel, stride, "relu6", expand=expanded != channels)
        channels = outputs
