"""Layers and their arrays from Keras' files: `.keras`, `.weights.h5`, and the older `.h5` of Keras 2 and 3.

A layer is known by its kind and its place among those of its kind, which is the order of the
model's layers. Only arrays stored in the file itself are read: no links to other files.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from minitl.arrays import Array
from minitl.errors import DataError
from minitl.networks.weights.files import MOST_ELEMENTS, expect_size, reading

KINDS = ("conv", "depthwise", "norm", "dense")
CLASSES = {"conv2d": "conv", "depthwise_conv2d": "depthwise", "batch_normalization": "norm", "dense": "dense"}
VARIABLES = {"norm": ("gamma", "beta", "moving_mean", "moving_variance")}  # in a file that numbers them
NUMBERED = re.compile(r"(?:.*/)?layers/(?P<layer>[^/]+)/vars/(?P<number>\d+)")
MOST_OBJECTS, MOST_TEXT = 20_000, 1 << 25
LITTLE, MOST_COMPRESSED = 1 << 20, 1100  # bytes that need not be stored; the most that deflate saves is 1032:1


@dataclass(frozen=True)
class KerasLayer:
    """A layer's name in the file and its arrays, by Keras' names of them (`kernel`, `gamma`, ...)."""

    name: str
    arrays: dict[str, Array] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Which of KINDS it is, by its arrays; "" for any other."""
        kernel = self.arrays.get("kernel", self.arrays.get("depthwise_kernel"))
        if kernel is None:
            return "norm" if "moving_mean" in self.arrays else ""
        if kernel.ndim == 4:
            narrow = kernel.shape[3] == 1 and kernel.shape[0] > 1
            return "depthwise" if "depthwise_kernel" in self.arrays or narrow else "conv"
        return "dense" if kernel.ndim == 2 else ""


@dataclass(frozen=True)
class KerasFile:
    """The layers in order, and the (epsilon, momentum) of the model's norms where the file tells them."""

    layers: list[KerasLayer]
    norms: set[tuple[float, float]]


def read_keras(path: Path) -> KerasFile:
    """The layers of a Keras file; raises DataError where it is none."""
    with reading(path):
        import h5py

        if not zipfile.is_zipfile(path):
            with h5py.File(path, "r") as file:
                return _read_h5(file, _text(_attribute(file, "model_config")) if "model_config" in file.attrs else "{}")
        with zipfile.ZipFile(path) as archive:
            config = _member(archive, "config.json", MOST_TEXT).decode()
            weights = _member(archive, "model.weights.h5", 4 * MOST_ELEMENTS)
        with h5py.File(io.BytesIO(weights), "r") as file:
            return _read_h5(file, config)


def _read_h5(file: Any, config: str) -> KerasFile:
    objects, configured = _objects(file), list(_configured(json.loads(config)))
    named = [path for path, item in objects.items() if _has_list(item, "layer_names")]
    order = {layer.name: place for place, layer in enumerate(configured)}
    layers = list(_named(objects, named[0], order) if named else _numbered(objects))
    if not any(layer.kind for layer in layers):
        raise DataError("no layers of a Keras model in it")
    return KerasFile(layers, {layer.norm for layer in configured if layer.norm})


def _objects(file: Any) -> dict[str, Any]:
    """All groups and arrays stored in the file by their path; links, also to other files, are not followed."""
    import h5py

    found: dict[str, Any] = {"": file}

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise DataError(f"array {name!r} is stored in another file")
        found[name] = item
        return True if len(found) > MOST_OBJECTS else None

    file.visititems(visit)
    if len(found) > MOST_OBJECTS:
        raise DataError(f"more than {MOST_OBJECTS:,} objects in it")
    return found


def _named(objects: dict[str, Any], root: str, order: dict[str, int]) -> Iterator[KerasLayer]:
    """The older format: each layer's group lists the names of its arrays (`block_1_expand/kernel:0`).

    A model within the model is one group, where what was trainable stands before what was not: its
    layers are put into the order of the configuration.
    """
    for group in _list(objects[root], "layer_names"):
        path = f"{root}/{group}".strip("/")
        layers: dict[str, KerasLayer] = {}
        for name in _list(objects[path], "weight_names"):
            *above, variable = name.partition(":")[0].split("/")
            layer = above[-1] if above else group
            layers.setdefault(layer, KerasLayer(layer)).arrays[variable] = _array(name, objects[f"{path}/{name}"])
        if len(layers) > 1 and not layers.keys() <= order.keys():
            raise DataError(f"the order of the layers in {group!r} is not told", remedy="save the whole model")
        yield from sorted(layers.values(), key=lambda layer: order.get(layer.name, 0))


def _numbered(objects: dict[str, Any]) -> Iterator[KerasLayer]:
    """Keras 3's own: `layers/conv2d_7/vars/0`, numbered among the layers of one class in the order of the model."""
    layers: dict[str, KerasLayer] = {}
    for name in sorted(objects, key=_with_numbers):
        match = NUMBERED.fullmatch(name)
        if match:
            kind = CLASSES.get(re.sub(r"_\d+$", "", match["layer"]), "")
            variables = VARIABLES.get(kind, ("kernel", "bias")) if kind else ()
            number = int(match["number"])
            variable = variables[number] if number < len(variables) else match["number"]
            path = name.partition("/vars/")[0]
            layers.setdefault(path, KerasLayer(match["layer"])).arrays[variable] = _array(name, objects[name])
    yield from layers.values()


def _with_numbers(path: str) -> list[tuple[str, int]]:
    """So that conv2d comes before conv2d_1, and conv2d_2 before conv2d_10."""
    parts = (re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", part) for part in path.split("/"))
    return [(match[1], int(match[2] or 0)) for match in parts if match]


def _array(name: str, dataset: Any) -> Array:
    if getattr(dataset, "dtype", None) is None or dataset.dtype.kind not in "fiu":
        raise DataError(f"{name!r} is no array of numbers")
    expect_size(name, dataset.size or 0)
    if dataset.nbytes > LITTLE + MOST_COMPRESSED * dataset.id.get_storage_size():
        raise DataError(f"array {name!r} is larger than what the file stores of it")
    array: Array = dataset[()]
    return array


def _has_list(item: Any, name: str) -> bool:
    return name in item.attrs or f"{name}0" in item.attrs


def _list(group: Any, name: str) -> Iterator[str]:
    """A list of names in an attribute, which Keras splits into several (`layer_names0`, ...) where it is long."""
    if name in group.attrs:
        yield from map(_text, _attribute(group, name))
    number = 0
    while f"{name}{number}" in group.attrs:
        yield from map(_text, _attribute(group, f"{name}{number}"))
        number += 1


def _attribute(item: Any, name: str) -> Any:
    attribute = item.attrs.get_id(name)
    size = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
    if size > MOST_TEXT:
        raise DataError(f"{name} in it has {size:,} bytes", remedy=f"at most {MOST_TEXT:,} are read")
    return item.attrs[name]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DataError(f"{name} in it has more than {most:,} bytes")
    return content


class Configured(NamedTuple):
    """A layer of a model's configuration; of a batch normalisation also (epsilon, momentum), momentum as PyTorch's."""

    name: str
    norm: tuple[float, float] | None


def _configured(config: Any) -> Iterator[Configured]:
    """The layers in the order of the model, those of models within it in their place."""
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        return
    norm = None
    if config.get("class_name") == "BatchNormalization":
        norm = float(inner["epsilon"]), round(1 - float(inner["momentum"]), 12)
    yield Configured(str(inner.get("name", "")), norm)
    for layer in inner.get("layers", ()):
        yield from _configured(layer)
