"""A calibration pass: bases of a convolution's input from some batches, and ranks from the energy that they hold.

For every layer with a rule of `ops.rules.subspace`, the covariance of its input along height, width and channels is
summed over the batches; its leading eigenvectors are the bases (HOSVD: Nguyen et al., NeurIPS 2024, arXiv:2411.06346;
LANCE, arXiv:2509.21617). With an energy e each rank is the least whose eigenvalues hold a share e of their sum.
Restoring x from bases of three axes then loses at most 3 (1 - e) of |x|^2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from minitl.arrays import Array
from minitl.checks import as_number
from minitl.errors import ShapeError, UsageError, ValueRangeError, brief
from minitl.layers import Conv
from minitl.networks.model import Model
from minitl.ops.rules.subspace import BASES, RULES, shapes_of
from minitl.tape import Tape


def calibrate(model: Model, batches: Iterable[Array], *, energy: float | None = None) -> dict[str, tuple[int, ...]]:
    """Give the model's layers bases made from these images; the ranks by the layers' paths.

    Without `energy`, in (0, 1], ranks are as planned. Nothing else of the model changes, running statistics included.
    Raises UsageError where no layer has such a rule or there is no batch, ValueRangeError for any other energy,
    ShapeError for images of several sizes, and whatever the model raises; bases are then those of before.
    """
    share = None if energy is None else as_number(energy)
    if energy is not None and (share is None or not 0 < share <= 1):
        raise ValueRangeError(op="calibrate", expected="an energy above 0, at most 1", got=brief(energy))
    layers = {layer.path: layer for layer in model.layers() if isinstance(layer, Conv) and layer.plan.rule in RULES}
    before = {path: (layer.plan, layer.carried()) for path, layer in layers.items()}
    if not layers:
        raise UsageError(
            "calibrate: no layer's rule has bases", layer=model.name, remedy="apply `subspace-fixed` first"
        )
    covariances: dict[str, list[Array]] = {}
    checkpoint, model.checkpoint = model.checkpoint, False  # which would keep x of the blocks alone
    try:
        for layer in layers.values():
            layer.apply(replace(layer.plan, rule=""))  # keeps x
        for images in batches:
            _add(covariances, model, images, layers)
    finally:
        model.checkpoint = checkpoint
        for path, (plan, bases) in before.items():
            layers[path].apply(plan)
            layers[path].carry(bases)
    if not covariances:
        raise UsageError("calibrate: no batch of images", layer=model.name)
    return {path: _give(layer, covariances[path], share) for path, layer in layers.items()}


def _add(covariances: dict[str, list[Array]], model: Model, images: Array, layers: dict[str, Conv]) -> None:
    tape = Tape(fused=False)
    tape.rerun = True  # leaves running statistics alone
    model(tape, images)
    for record in tape.records:
        if record.layer in layers:
            x = record.saved["x"]
            own = covariances.setdefault(record.layer, _zeros(x))
            if (sides := tuple(map(len, own))) != x.shape[1:]:
                expected = f"batches of one size, here maps {sides}"
                raise ShapeError(layer=record.layer, op="calibrate", expected=expected, got=f"{x.shape[1:]}")
            for axis, known in enumerate(own, start=1):
                rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64)
                known += rows @ rows.T


def _zeros(x: Array) -> list[Array]:
    return [np.zeros((side, side)) for side in x.shape[1:]]


def _give(layer: Conv, covariances: list[Array], share: float | None) -> tuple[int, ...]:
    """Give a layer the leading eigenvectors; their numbers."""
    spectra = [np.linalg.eigh(covariance) for covariance in covariances]
    if share is None:
        ranks = tuple(k for k, _ in shapes_of((1, *(len(c) for c in covariances)), layer.plan.ranks))
    else:
        ranks = tuple(_rank(values[::-1], share) for values, _ in spectra)
    layer.apply(replace(layer.plan, ranks=ranks))
    dtype = layer.parameters["weight"].dtype
    bases = [vectors[:, ::-1][:, :k].T.astype(dtype, order="C") for (_, vectors), k in zip(spectra, ranks, strict=True)]
    layer.carry(dict(zip(BASES, bases, strict=True)))
    return ranks


def _rank(energies: Array, share: float) -> int:
    """How many of the energies, the largest first, hold that share of their sum."""
    held = np.cumsum(np.maximum(energies, 0))
    return min(len(held), int(np.searchsorted(held, share * held[-1])) + 1)
