"""Which blocks of a network get a module beside them, and of what size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minitl.networks.network import Network
from minitl.networks.sizes import make_divisible
from minitl.sides.attention import Attention
from minitl.sides.lite_residual import LiteResidual
from minitl.sides.side import Side, SideSpec

KERNEL, FITTED_FOR = 5, 224  # the largest kernel, and the images whose maps the kernels are made to fit
GROUPS = 2

Sides = dict[int, Side]  # by the number of their block, from 0


def tinytl(network: Network) -> Sides:
    """A lite residual module beside every block but the first."""
    return {
        number: LiteResidual(spec, middle=make_divisible(spec.inputs), groups=GROUPS, stride=spec.stride)
        for number, spec in _specs(network)
        if number > 0
    }


def rep_net(network: Network, *, integers: bool = False) -> Sides:
    """Rep-Net's modules: beside the first block of each stage above the first, and the last block.

    This gives the released places of MobileNetV2 and V3-Large. The lowest reads the image. As released, the
    MobileNetV2 table cannot run: its module at `features.14` does not halve the map as its block does.
    Here all modules follow their block, as the released V3 ones do.
    """
    places = stage_starts(network)
    sides: Sides = {}
    for number, spec in _specs(network, image=places[0] if places else None):
        if number in places:
            groups = 1 if spec.reads_image else GROUPS
            sides[number] = LiteResidual(
                spec, middle=make_divisible(spec.inputs), groups=groups, stride=1, integers=integers
            )
    return sides


def attention(network: Network, *, multiplies: bool) -> Sides:
    """An attention adaptor at each of Rep-Net's places."""
    places = stage_starts(network)
    return {
        number: Attention(
            spec,
            middle=make_divisible(spec.inputs),
            squeezed=make_divisible(spec.inputs / 4),
            multiplies=multiplies,
        )
        for number, spec in _specs(network)
        if number in places
    }


def stage_starts(network: Network) -> list[int]:
    """The blocks, but the first, that change the number of channels or halve the map, and the last block.

    (In a narrow network two stages may have the same number of channels.)
    """
    specs = [block.spec for block in network.blocks]
    starts = [spec.in_channels != spec.out_channels or spec.stride > 1 for spec in specs[:-1]]
    return [number for number, starting in enumerate([*starts, True]) if number and starting]


def fitted_kernel(side: int) -> int:
    """The largest odd kernel, up to 5, that fits a map of that side."""
    return max(k for k in range(1, KERNEL + 1, 2) if k <= max(side, 1))


def _specs(network: Network, image: int | None = None) -> Iterator[tuple[int, SideSpec]]:
    """Each block's number and the measures of a module beside it; that of block `image` reads the image."""
    rng, stride = np.random.default_rng(0), network.stem.conv.attrs["stride"]
    for number, block in enumerate(network.blocks):
        yield (
            number,
            SideSpec(
                path=f"sides.{number}",
                inputs=network.input_channels if number == image else block.spec.in_channels,
                outputs=block.spec.out_channels,
                stride=block.spec.stride,
                kernel=KERNEL if number == image else fitted_kernel(FITTED_FOR // stride // 2),
                rng=rng,
                dtype=network.dtype,
                reads_image=number == image,
            ),
        )
        stride *= block.spec.stride
