"""From the names and layouts of torchvision, timm and Keras to a network's own, and whose conventions then hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minitl import ops
from minitl.arrays import Array
from minitl.errors import DataError, MinitlError
from minitl.layers import Conv, Layer, Linear, Norm
from minitl.networks.names import STYLES
from minitl.networks.weights.apart import read_apart
from minitl.networks.weights.files import KERAS_FILES, read_arrays
from minitl.networks.weights.keras_file import KerasFile, KerasLayer

if TYPE_CHECKING:
    from minitl.networks.network import Network


class Conventions(NamedTuple):
    """eps and momentum (PyTorch's) of the norms, the padding, and a sentence on whose they are."""

    eps: float
    momentum: float
    padding: str
    whose: str


PRESETS = {
    "torchvision_v2": Conventions(1e-5, 0.1, "symmetric", "torchvision's, of MobileNetV2"),
    "torchvision_v3": Conventions(1e-3, 0.01, "symmetric", "torchvision's, of MobileNetV3"),
    "timm": Conventions(1e-5, 0.1, "symmetric", "timm's defaults"),
    "keras": Conventions(1e-3, 0.001, "same", "Keras' defaults for MobileNets, for the file does not tell"),
}


@dataclass
class Incoming:
    """Arrays by the network's names; the file's names that found no place; the conventions they come with."""

    arrays: dict[str, Array]
    unexpected: list[str]
    conventions: Conventions


def own(network: Network, path: Path) -> Incoming:
    """A file with the network's own names; its conventions stay."""
    table = network.table
    kept = Conventions(table["eps"], table["momentum"], table["padding"], "the network's own, unchanged")
    return _by_path(network, read_arrays(path), table["names"], kept)


def torchvision(network: Network, path: Path) -> Incoming:
    """torchvision's MobileNetV2 or V3; V3 is told by its hidden linear layer."""
    names = network.table["names"]
    if names == "timm":
        names = "torchvision_v3" if network.outline.hidden else "torchvision_v2"
    return _by_path(network, read_arrays(path), names, PRESETS[names])


def timm(network: Network, path: Path) -> Incoming:
    """timm's; a table with timm's names knows the conventions of its model."""
    conventions, table = PRESETS["timm"], network.table
    if table["names"] == "timm":
        whose = f"those of timm's {network.name}, by its table"
        conventions = Conventions(table["eps"], table["momentum"], table["padding"], whose)
    return _by_path(network, read_arrays(path), "timm", conventions)


def keras(network: Network, path: Path) -> Incoming:
    """Keras': layers are matched by kind and order, and kernels brought from (k, k, I, O) to (O, I, k, k)."""
    if path.suffix.lower() not in KERAS_FILES:
        raise DataError(f"{path}: no Keras file, by its name", remedy=f"known are {', '.join(KERAS_FILES)}")
    file = read_apart(path)
    conventions = PRESETS["keras"]
    if len(file.norms) > 1:
        raise DataError(f"{path}: its norms differ in epsilon or momentum: {sorted(file.norms)}")
    for eps, momentum in file.norms:
        conventions = Conventions(eps, momentum, "same", "Keras' padding; eps and momentum as the file tells")
    arrays, unexpected = {}, []
    for layer, theirs in _pairs(network, file):
        for variable, array in theirs.arrays.items():
            name = VARIABLES.get(variable) if layer else None
            if layer and name in layer.parameters:
                arrays[f"{layer.path}.{name}"] = _from_keras(layer, array)
            else:
                unexpected.append(f"{theirs.name}/{variable}")
    return Incoming(arrays, unexpected, conventions)


SOURCES = {"": own, "torchvision": torchvision, "timm": timm, "keras": keras}
VARIABLES = {
    "kernel": "weight", "depthwise_kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


def _by_path(network: Network, arrays: dict[str, Array], style: str, conventions: Conventions) -> Incoming:
    """Translate `path.parameter` from that style's paths to the network's."""
    ours = STYLES[network.table["names"]](network.outline).all()
    translated = {theirs: our for theirs, our in zip(STYLES[style](network.outline).all(), ours, strict=True) if our}
    shapes = {p.name: p.value.shape for p in network.parameters()}
    known = {*shapes, *network.counters()}
    incoming, unexpected = {}, []
    for name, array in arrays.items():
        path, _, parameter = name.rpartition(".")
        target = f"{translated.get(path, '')}.{parameter}"
        if target not in known:
            unexpected.append(name)
        elif array.ndim == 4 and array.shape[2:] == (1, 1) and len(shapes.get(target, ())) == 2:
            incoming[target] = array[:, :, 0, 0]  # timm's hidden linear layer is a 1x1 convolution
        else:
            incoming[target] = array
    return Incoming(incoming, unexpected, conventions)


def _pairs(network: Network, file: KerasFile) -> Iterator[tuple[Layer | None, KerasLayer]]:
    """Each layer of the file with the network's of its kind and place.

    The linear layers of Keras' MobileNetV3 are 1x1 convolutions, the last ones; a file may also
    have none at all.
    """
    theirs: dict[str, list[KerasLayer]] = {"conv": [], "depthwise": [], "norm": [], "dense": [], "": []}
    for found in file.layers:
        theirs[found.kind].append(found)
    ours: dict[str, list[Layer]] = {"conv": [], "depthwise": [], "norm": [], "dense": []}
    for layer in network.layers():
        if isinstance(layer, Conv):
            ours["depthwise" if layer.op is ops.depthwise_conv else "conv"].append(layer)
        elif isinstance(layer, Norm | Linear):
            ours["norm" if isinstance(layer, Norm) else "dense"].append(layer)
    if len(theirs["conv"]) == len(ours["conv"]) + len(ours["dense"]):
        ours["conv"] += ours.pop("dense")
    for kind, layers in ours.items():
        count = len(theirs[kind])
        if count != len(layers) and not (kind == "dense" and count == 0):
            raise _other_network(network, kind, len(layers), count)
        yield from zip(layers, theirs[kind], strict=False)
    yield from ((None, layer) for layer in theirs[""])


def _other_network(network: Network, kind: str, ours: int, theirs: int) -> MinitlError:
    what = {"conv": "convolutions", "depthwise": "depthwise convolutions", "norm": "norms", "dense": "linear layers"}
    return DataError(f"{network.name} has {ours} {what[kind]}, the file {theirs}", remedy="choose the file's network")


def _from_keras(layer: Layer, array: Array) -> Array:
    if array.ndim == 4 and isinstance(layer, Linear):
        return np.ascontiguousarray(array[0, 0].T)
    if array.ndim == 4:
        depthwise = isinstance(layer, Conv) and layer.op is ops.depthwise_conv
        return np.ascontiguousarray(array.transpose(2, 3, 0, 1) if depthwise else array.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(array.T)
