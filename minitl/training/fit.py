"""The training loop, and the accuracy it is judged by."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np

from minitl.arrays import Array
from minitl.errors import ValueRangeError
from minitl.networks.network import Network
from minitl.step import loss_and_gradients
from minitl.training.data import Augmentation, Dataset, batches, spans
from minitl.training.optimizers import Optimizer
from minitl.training.progress import Silent, bar
from minitl.training.schedules import Schedule, cosine


@dataclass
class History:
    """Mean loss and fraction correct of each epoch, over the images as they were trained on."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


def fit(
    network: Network,
    data: Dataset,
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int,
    schedule: Schedule = cosine,
    augment: Augmentation | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> History:
    """Train, in place, what the network's method trains.

    `seed` decides the order of images, what `augment` does to them and what dropout drops: the
    same seed gives the same bytes. `schedule(step, steps)` scales the learning rate. `progress`
    is a progress bar's description. Raises
    ValueRangeError for a loss or a gradient that is not finite, before it reaches a parameter.
    """
    if epochs < 1 or len(data) == 0:
        raise ValueRangeError(op="fit", expected="at least one epoch and one image", got=f"{epochs} and {len(data)}")
    rng = np.random.default_rng(seed)
    parameters, history = network.trained_parameters(), History()
    step, steps = 0, epochs * len(spans(len(data), batch_size))
    with bar(progress, steps) if progress else nullcontext(Silent()) as shown:
        for _ in range(epochs):
            seen, correct, total_loss = 0, 0, 0.0
            for images, labels in batches(data, batch_size, rng, augment):
                dropout = int(rng.integers(1 << 32))
                loss, logits, gradients = loss_and_gradients(network, images, labels, seed=dropout)
                if not np.isfinite(loss):
                    raise ValueRangeError(
                        op="fit", expected=f"a finite loss at step {step}", got=str(loss), remedy="lower lr"
                    )
                optimizer.step(parameters, gradients, lr_scale=schedule(step, steps))
                step += 1
                seen += len(labels)
                correct += count_correct(logits, labels)
                total_loss += loss * len(labels)
                shown.step(loss)
            history.loss.append(total_loss / seen)
            history.accuracy.append(correct / seen)
    return history


def accuracy(network: Network, data: Dataset, batch_size: int = 64) -> float:
    """Fraction of `data` classified correctly, in evaluation mode."""
    if len(data) == 0:
        raise ValueRangeError(op="accuracy", expected="at least one image", got="none")
    return count_correct(network.predict(data.images, batch_size=batch_size), data.labels) / len(data)


def count_correct(logits: Array, labels: Array) -> int:
    """How many rows of `logits` (N, K) are largest at their label (N,)."""
    return int(np.count_nonzero(logits.argmax(axis=1) == labels))
