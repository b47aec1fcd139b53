"""From a table to a network: sizes, names, and the layers in the order their weights are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from minitl.blocks import Build, ConvNorm, InvertedResidual
from minitl.layers import Activation, Dropout, Linear, Pool
from minitl.networks.names import STYLES
from minitl.networks.network import Classifier, Network, build
from minitl.networks.schema import Table
from minitl.networks.sizes import Sizes, sizes
from minitl.networks.table import read_table


def assemble(table: Mapping[str, Any], where: str, *, dtype: str = "float32", seed: int = 0, **options: Any) -> Network:
    """The network of a table in which `options` are given anew, unless they are None; `where` begins its errors."""
    plain = {**table, **{key: value for key, value in options.items() if value is not None}}
    read = read_table(plain, where)
    return _network(read, plain, build(seed, dtype, eps=read.eps, momentum=read.momentum))


def _network(table: Table, plain: dict[str, Any], make: Build) -> Network:
    found = sizes(table)
    paths = STYLES[table.names](found.outline)
    stem = ConvNorm(found.stem, paths.stem, make)
    specs = chain.from_iterable(found.stages)
    blocks = [InvertedResidual(spec, own.__getitem__, make) for spec, own in zip(specs, paths.blocks, strict=True)]
    head = ConvNorm(found.head, paths.head, make) if found.head else None
    classifier = _classifier(table, found, paths.classifier, make)
    spelled_out = {key: value for key, value in vars(table).items() if isinstance(value, str | int | float)}
    return Network(
        {**plain, **spelled_out}, found.outline, stem, blocks, head, Pool(paths.pool), classifier, dtype=make.dtype
    )


def _classifier(table: Table, found: Sizes, paths: tuple[str, str, str, str], make: Build) -> list[Classifier]:
    inputs, layers = found.features, list[Classifier]()
    if found.hidden:
        layers.append(Linear(paths[0], inputs, found.hidden, rng=make.rng, dtype=make.dtype, final=False))
        layers.append(Activation(paths[1], "classifier_act", table.classifier.activation))
        inputs = found.hidden
    layers.append(Dropout(paths[2], table.dropout))
    return [*layers, Linear(paths[3], inputs, table.num_classes, rng=make.rng, dtype=make.dtype)]
