"""One step of training: forward, loss, backward, update."""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array
from minitl.errors import NotFiniteError
from minitl.networks.network import Network
from minitl.step import Loss, loss_and_gradients
from minitl.training.optimizers import Optimizer


def take_step(
    network: Network,
    optimizer: Optimizer,
    images: Array,
    labels: Array,
    *,
    lr_scale: float,
    dropout: int,
    loss: Loss | None = None,
    apply: bool = False,
) -> tuple[float, Array]:
    """Train what the network's method trains on one batch; its loss and logits (N, K), as they were before the update.

    `lr_scale` multiplies the learning rate, `dropout` is the seed of what dropout drops. Raises NotFiniteError for a
    loss, a gradient or an update that is not finite, before it reaches a parameter; with `apply`, where gradients are
    applied as they come, parameters above that place may be updated by then.
    """
    applier = optimizer.scaled(lr_scale) if apply else None
    value, logits, gradients = loss_and_gradients(network, images, labels, seed=dropout, loss=loss, apply=applier)
    if not np.isfinite(value):
        remedy = "lower the learning rate"
        raise NotFiniteError(op="train", expected="a finite loss", got=str(value), remedy=remedy)
    optimizer.step(network.trained_parameters(), gradients, lr_scale=lr_scale)  # of none, where they are applied
    return value, logits
