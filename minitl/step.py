"""One training step's gradients: forward, loss, backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.networks.network import Model, Network
from minitl.records import Var
from minitl.tape import Tape


def forward_backward(model: Model, tape: Tape, images: Any, labels: Any) -> tuple[Var, Var, dict[str, Array]]:
    """Loss, output and gradients of one batch, on the tape given.

    What is alive at each moment is decided here, by these lines; `accounting.predict` runs the
    very same ones on a `ShadowTape`. Labels are looked at first: the forward pass moves running
    statistics, which labels refused after it would leave moved.
    """
    if tape.computes and isinstance(images, np.ndarray) and images.ndim:  # or the model refuses them
        model.expect_labels(labels, len(images))
    output = model(tape, images)
    loss = model.loss(tape, output, labels)
    return loss, output, tape.backward(loss)


def loss_and_gradients(
    network: Network, images: Array, labels: Array, *, seed: int = 0
) -> tuple[float, Array, dict[str, Array]]:
    """Loss, logits (N, K) and gradients by parameter name of one batch; `seed` is the dropout's."""
    loss, logits, gradients = forward_backward(network, Tape(seed=seed), images, labels)
    return float(loss.value), logits.value, gradients
