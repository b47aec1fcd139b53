"""One training step's gradients: forward, loss, backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.gradients import Apply
from minitl.networks.model import Model
from minitl.networks.network import Network
from minitl.records import Var
from minitl.tape import Tape

Loss = Callable[[Tape, Var, Any], Var]  # of a tape, the model's output, and labels


def forward_backward(
    model: Model, tape: Tape, images: Any, labels: Any, *, loss: Loss | None = None, apply: Apply | None = None
) -> tuple[Var, Var, dict[str, Array]]:
    """Loss, output and gradients of one batch, on the tape given; `loss` is the model's own by default.

    With `apply`, an optimizer, gradients are applied as they come, and none is returned.

    What is alive at each moment is decided here, by these lines; `accounting.predict` runs the
    very same ones on a `ShadowTape`. Labels are looked at first: the forward pass moves running
    statistics, which labels refused after it would leave moved.
    """
    if tape.computes and isinstance(images, np.ndarray) and images.ndim:  # or the model refuses them
        model.expect_labels(labels, len(images))
    output = model(tape, images)
    value = (loss or model.loss)(tape, output, labels)
    return value, output, tape.backward(value, apply=apply)


def loss_and_gradients(
    network: Network,
    images: Array,
    labels: Array,
    *,
    seed: int = 0,
    loss: Loss | None = None,
    apply: Apply | None = None,
) -> tuple[float, Array, dict[str, Array]]:
    """Loss, logits (N, K) and gradients by parameter name of one batch; `seed` is the dropout's."""
    value, logits, gradients = forward_backward(network, Tape(seed=seed), images, labels, loss=loss, apply=apply)
    return float(value.value), logits.value, gradients
