"""A network's leaves as shapes, with TinyTL's lite residual modules beside its blocks. Nothing here runs.

A lite residual module (Cai et al. 2020, arXiv:2007.11622, section 3.2) refines a block's output
on a map of half the side:

    y = block(a) + up(norm(conv1x1(relu(norm(conv_k(pool2(a)))))))

`pool2` averages 2 x 2 positions, `conv_k` has two groups and the block's stride, `up` is
bilinear. Every block but the first has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from minitl.blocks import BlockSpec
from minitl.errors import ValueRangeError
from minitl.layers import Activation, Conv, Layer, Linear, Pool
from minitl.methods.side_places import FITTED_FOR, GROUPS, fitted_kernel
from minitl.networks.network import Network
from minitl.networks.sizes import make_divisible
from minitl.reproduce.convolutions import strided


class Map(NamedTuple):
    """A square map of one image: channels, and positions along a side."""

    channels: int
    side: int

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return self.channels * self.side**2


@dataclass(frozen=True)
class Leaf:
    """A module without children, on one image.

    `x` and `y` are the values it reads and writes, `parameters` the size of each of its
    parameters, `skip` the values that a skip connection around it holds meanwhile. `part` is
    where it stands: `backbone`, `lite`, `lite_final` (a module's last norm) or `classifier`.
    """

    kind: str
    part: str
    x: int
    y: int
    groups: int = 1
    parameters: Mapping[str, int] = field(default_factory=dict)
    skip: int = 0


def leaves(network: Network, resolution: int, *, lite_residual: bool = True) -> list[Leaf]:
    """The leaves in the order they run on an image of `resolution` x `resolution`.

    Raises ValueRangeError where a map is too small to be halved.
    """
    found, x = _walk(network.stem.layers(), Map(network.input_channels, resolution), "backbone")
    stride = network.stem.conv.attrs["stride"]
    for number, block in enumerate(network.blocks):
        a = x
        inside, x = _walk(block.layers(), a, "backbone")
        if lite_residual and number > 0:
            inside += lite_residual_leaves(block.spec, a, x, fitted_kernel(FITTED_FOR // stride // 2))
        found += [replace(leaf, skip=a.values if block.add else 0) for leaf in inside]
        stride *= block.spec.stride
    head, x = _walk((*(network.head.layers() if network.head else ()), network.pool), x, "backbone")
    classifier, _ = _walk(network.classifier, x, "classifier")
    return found + head + classifier


def lite_residual_leaves(block: BlockSpec, a: Map, y: Map, kernel: int) -> Iterator[Leaf]:
    """The module beside a block from map `a` to map `y`."""
    pooled = Map(a.channels, a.side // 2)
    if pooled.side == 0:
        raise ValueRangeError(layer="lite residual module", expected="a map of at least 2 x 2", got="1 x 1")
    middle = Map(make_divisible(a.channels), strided(pooled.side, block.stride))
    small = Map(block.out_channels, middle.side)
    grouped = {"weight": middle.channels * pooled.channels // GROUPS * kernel**2}
    yield Leaf("pool", "lite", a.values, pooled.values)
    yield Leaf("conv", "lite", pooled.values, middle.values, GROUPS, grouped)
    yield Leaf("norm", "lite", middle.values, middle.values, parameters=_affine(middle))
    yield Leaf("relu", "lite", middle.values, middle.values)
    yield Leaf("conv", "lite", middle.values, small.values, parameters={"weight": middle.channels * small.channels})
    yield Leaf("norm", "lite_final", small.values, small.values, parameters=_affine(small))
    yield Leaf("upsample", "lite", small.values, y.values)


def _walk(layers: Iterable[Layer], x: Map, part: str) -> tuple[list[Leaf], Map]:
    """The layers as leaves, and the map they give."""
    found = []
    for layer in layers:
        kind = layer.op.name if isinstance(layer, Activation) else type(layer).__name__.lower()
        parameters = {name: p.value.size for name, p in layer.parameters.items() if not p.statistic}
        y = _output(layer, x)
        groups = x.channels // layer.parameters["weight"].value.shape[1] if isinstance(layer, Conv) else 1
        found.append(Leaf(kind, part, x.values, y.values, groups, parameters))
        x = y
    return found, x


def _output(layer: Layer, x: Map) -> Map:
    if isinstance(layer, Conv):
        return Map(layer.parameters["weight"].value.shape[0], strided(x.side, layer.attrs.get("stride", 1)))
    if isinstance(layer, Linear):
        return Map(layer.parameters["weight"].value.shape[0], 1)
    return Map(x.channels, 1) if isinstance(layer, Pool) else x


def _affine(y: Map) -> dict[str, int]:
    return {"weight": y.channels, "bias": y.channels}
