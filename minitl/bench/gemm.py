"""The bare matrix products of a step: the least it could take if all else were free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, Shape
from minitl.bench.cases import Case, Tuning
from minitl.errors import lookup
from minitl.kernels import pointwise
from minitl.records import Record
from minitl.shadow import ShadowTape

WEIGHTS = {"linear": 1, "pointwise_conv": 1, "gated_conv": 2}  # which input is the weight
WITHOUT = {  # ops of the networks that are timed, which are no product of two matrices
    "conv", "depthwise_conv", "batch_norm", "frozen_norm", "relu", "relu6", "hard_swish", "hard_sigmoid", "scale",
    "add", "global_avg_pool", "dropout", "cross_entropy",
}  # fmt: skip


class Product(NamedTuple):
    """One of the three products of x (.., I), weight (O, I) and y (.., O): `kind` says what it makes."""

    kind: str  # "y", "gx" or "gw"
    x: Shape
    outputs: int


class Products:
    """Matrix products with arrays of their own; a call computes them all, with minitl's own kernels."""

    def __init__(self, products: list[Product]) -> None:
        self._rng = np.random.default_rng(0)
        self.runs = [self._prepared(product) for product in products]

    def __call__(self) -> None:
        """Compute them all."""
        for run in self.runs:
            run()

    def _prepared(self, product: Product) -> Callable[[], None]:
        x, weight = self._random(product.x), self._random((product.outputs, product.x[-1]))
        y = self._random((*product.x[:-1], product.outputs))
        if product.kind == "gw":
            return lambda: pointwise.grad_weight(x, y, weight)
        if product.kind == "gx":
            return lambda: pointwise.grad_input(y, weight, x)
        return lambda: pointwise.forward(x, weight, None, y)

    def _random(self, shape: Shape) -> Array:
        return self._rng.random(shape, np.float32)


def products(case: Case, tuning: Tuning) -> list[Product]:
    """Those of all pointwise convolutions and linear layers, as a step on shapes alone records them."""
    return [product for record in _records(case, tuning) for product in _products(record)]


def multiply_adds(case: Case, tuning: Tuning) -> int:
    """All those of a step, or of its forward pass where there is no backward."""
    counts = [record.cost.macs for record in _records(case, tuning)]
    return sum(macs.total if case.backward else macs.forward for macs in counts)


def _records(case: Case, tuning: Tuning) -> Sequence[Record]:
    model, tape = case.model(tuning), ShadowTape()
    images = tape.phantom((case.batch, case.resolution, case.resolution, model.input_channels), model.dtype)
    model(tape, images)
    return tape.records


def _products(record: Record) -> Iterator[Product]:
    """y = x W^T, gx = gy W and gW = gy^T x: those that the record needs; raises for an op nobody has looked at."""
    if record.name in WITHOUT:
        return
    weight = lookup("op to count products of", record.name, WEIGHTS, layer=record.layer)
    x, outputs = record.shapes[0], record.shapes[weight][0]
    yield Product("y", x, outputs)
    if record.needs[0]:
        yield Product("gx", x, outputs)
    if record.needs[weight]:
        yield Product("gw", x, outputs)
