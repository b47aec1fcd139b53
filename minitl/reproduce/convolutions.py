"""The convolutions of a network as shapes, in the order they run. Nothing here runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minitl.blocks import BlockSpec
from minitl.networks.network import Network


@dataclass(frozen=True)
class Convolution:
    """A convolution on one square image: channels and sides coming in and going out, kernel, groups."""

    inputs: int
    side_in: int
    outputs: int
    side_out: int
    kernel: int = 1
    groups: int = 1

    @property
    def values_in(self) -> int:
        """How many numbers it reads."""
        return self.inputs * self.side_in**2

    @property
    def values_out(self) -> int:
        """How many numbers it writes."""
        return self.outputs * self.side_out**2


def of_network(network: Network, resolution: int) -> list[Convolution]:
    """Stem, blocks and final 1x1 convolution, if any, of a network on images of `resolution` x `resolution`."""
    outputs, inputs, kernel, _ = network.stem.conv.parameters["weight"].value.shape
    side = strided(resolution, network.stem.conv.attrs["stride"])
    found = [Convolution(inputs, resolution, outputs, side, kernel)]
    found += of_blocks((block.spec for block in network.blocks), side)
    if network.head is None:
        return found
    outputs, inputs, _, _ = network.head.conv.parameters["weight"].value.shape
    side = found[-1].side_out
    return [*found, Convolution(inputs, side, outputs, side)]


def of_blocks(blocks: Iterable[BlockSpec], side: int) -> Iterator[Convolution]:
    """Expanding, depthwise and projecting convolution of each block; the first block reads a map of that side."""
    for spec in blocks:
        wide, smaller = spec.expanded_channels, strided(side, spec.stride)
        if spec.expand:
            yield Convolution(spec.in_channels, side, wide, side)
        yield Convolution(wide, side, wide, smaller, spec.kernel, groups=wide)
        yield Convolution(wide, smaller, spec.out_channels, smaller)
        side = smaller


def of_resnet(repeats: Iterable[int], resolution: int) -> list[Convolution]:
    """A ResNet of basic blocks (He et al. 2016, arXiv:1512.03385), `repeats` of them per stage.

    A block's shortcut convolution, where it has one, comes last.
    """
    side, inputs = strided(strided(resolution, 2), 2), 64
    found = [Convolution(3, resolution, inputs, strided(resolution, 2), 7)]
    for stage, blocks in enumerate(repeats):
        outputs = 64 << stage
        for block in range(blocks):
            smaller = strided(side, 2) if stage and block == 0 else side
            found.append(Convolution(inputs, side, outputs, smaller, 3))
            found.append(Convolution(outputs, smaller, outputs, smaller, 3))
            if smaller != side or inputs != outputs:
                found.append(Convolution(inputs, side, outputs, smaller))
            side, inputs = smaller, outputs
    return found


def strided(side: int, stride: int) -> int:
    """The side a convolution padded by (k - 1) / 2 gives: ceil(side / stride)."""
    return -(-side // stride)
