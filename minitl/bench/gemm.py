"""The bare matrix products of a step: the least it could take if all else were free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minitl.arrays import positions
from minitl.bench.cases import Case, Tuning
from minitl.kernels.matmul import matmul
from minitl.records import OpRecord
from minitl.shadow import ShadowTape

WEIGHTS = {"linear": 1, "pointwise_conv": 1, "folded_conv": 1, "gated_conv": 2}  # which input is the weight


class Product(NamedTuple):
    """out (M, N) = a (M, K) @ b (K, N)."""

    m: int
    k: int
    n: int


class Products:
    """Matrix products with arrays of their own; a call computes them all, as minitl does."""

    def __init__(self, products: list[Product]) -> None:
        rng = np.random.default_rng(0)
        self.arrays = [
            (rng.random((m, k), np.float32), rng.random((k, n), np.float32), np.empty((m, n), np.float32))
            for m, k, n in products
        ]

    def __call__(self) -> None:
        """Compute them all."""
        for a, b, out in self.arrays:
            matmul(a, b, out)


def products(case: Case, tuning: Tuning) -> list[Product]:
    """Those of all pointwise convolutions and linear layers, as a step on shapes alone records them."""
    model, tape = case.model(tuning), ShadowTape()
    images = tape.phantom((case.batch, case.resolution, case.resolution, model.input_channels), model.dtype)
    model(tape, images)
    return [product for record in tape.records for product in _products(record)]


def _products(record: object) -> Iterator[Product]:
    """y = x W^T, gx = gy W and gW = gy^T x: those that the record needs."""
    assert isinstance(record, OpRecord), "no method that is timed here checkpoints"
    if record.op.name not in WEIGHTS or record.attrs.get("kind", "pointwise_conv") != "pointwise_conv":
        return
    weight = WEIGHTS[record.op.name]
    m, (o, i) = positions(record.shapes[0]), record.shapes[weight][:2]
    yield Product(m, i, o)
    if record.needs[0]:
        yield Product(m, o, i)
    if record.needs[weight]:
        yield Product(o, m, i)
