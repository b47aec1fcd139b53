"""The training loop, and the accuracy it is judged by."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np

from minitl.arrays import Array
from minitl.checks import expect_count, expect_flag
from minitl.errors import UsageError, ValueRangeError, brief
from minitl.networks.network import Network
from minitl.training.data import Augmentation, Dataset, batches, spans
from minitl.training.optimizers import Optimizer
from minitl.training.progress import Silent, bar
from minitl.training.schedules import Schedule, cosine
from minitl.training.steps import take_step
from minitl.training.undo import all_or_nothing


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
    apply: bool = False,
) -> History:
    """Train, in place, what the network's method trains.

    `seed` decides the order of images, what `augment` does to them and what dropout drops: the
    same seed gives the same bytes. `schedule(step, steps)` scales the learning rate. `progress`
    is what a progress bar is called: on a terminal there is one, and everywhere a line on stderr for
    each epoch. Raises ValueRangeError as soon as statistics, loss, a gradient
    or an updated parameter is not finite, and whatever else a step raises; network and optimizer
    are then as they were before the call. (To that end it holds a copy of what it trains.)

    With `apply`, gradients are applied as they come (Lv et al. 2023, arXiv:2306.09782): the same
    bytes, and a step holds hardly any gradients. Nor is a copy held: a step that is refused
    half-way leaves, all of them finite, the parameters above that place updated. An optimizer that
    clips by the global norm raises UsageError at once.
    """
    expect_trainable(network, data, optimizer, schedule=schedule, augment=augment)
    epochs = expect_count("epochs", epochs, op="fit")
    rng = np.random.default_rng(expect_count("seed", seed, least=0, op="fit"))
    apply = expect_flag("apply", apply, op="fit")
    steps, done = epochs * len(spans(len(data), batch_size)), 0
    if apply:
        optimizer.begin(p for p in network.parameters() if p.trained)
    undone = nullcontext() if apply else all_or_nothing(network, optimizer)
    history = History()
    with bar(progress, steps) if progress else nullcontext(Silent()) as shown, undone:
        for epoch in range(1, epochs + 1):
            seen, correct, total_loss = 0, 0, 0.0
            for images, labels in batches(data, batch_size, rng, augment):
                network.begin_step(done, steps)
                scale, dropout = schedule(done, steps), int(rng.integers(1 << 32))
                loss, logits = take_step(
                    network, optimizer, images, labels, lr_scale=scale, dropout=dropout, apply=apply
                )
                done += 1
                seen += len(labels)
                correct += count_correct(logits, labels)
                total_loss += loss * len(labels)
                shown.step(loss)
            history.loss.append(total_loss / seen)
            history.accuracy.append(correct / seen)
            told = f"loss {history.loss[-1]:.4f}, {history.accuracy[-1]:.1%} right"
            shown.say(f"{progress}: epoch {epoch}/{epochs}: {told}")
    return history


def accuracy(network: Network, data: Dataset, batch_size: int = 64) -> float:
    """Fraction of `data` classified correctly, in evaluation mode."""
    expect_classes(network, data)
    return count_correct(network.predict(data.images, batch_size=batch_size), data.labels) / len(data)


def count_correct(logits: Array, labels: Array) -> int:
    """How many rows of `logits` (N, K) are largest at their label (N,)."""
    return int(np.count_nonzero(logits.argmax(axis=1) == labels))


def expect_trainable(network: Network, data: Dataset, optimizer: Optimizer, **callables: object) -> None:
    """Raise unless the network has something to train, by this optimizer and functions, and a class for every label."""
    expect_classes(network, data)
    if not isinstance(optimizer, Optimizer):
        raise UsageError(op="fit", expected="an optimizer", got=brief(repr(optimizer)), remedy="take SGD or Adam")
    for name, function in callables.items():
        if not callable(function) and not (name == "augment" and function is None):
            raise UsageError(op="fit", expected=f"{name} to be a function", got=brief(repr(function)))
    if not network.trained_parameters():
        raise UsageError("nothing of the network is trained", op="fit", remedy="apply a method to it first")


def expect_classes(network: Network, data: Dataset) -> None:
    """Raise unless `network` is a network, and `data` has images, of no more classes than it tells apart."""
    if not isinstance(network, Network) or not isinstance(data, Dataset):
        got = brief(f"{type(network).__name__} and {type(data).__name__}")
        raise UsageError(expected="a Network and a Dataset", got=got)
    if len(data) == 0:
        raise ValueRangeError(layer=network.name, expected="at least one image", got="none")
    if len(data.classes) > (network.num_classes or 0):
        raise ValueRangeError(
            layer=network.name,
            expected=f"data of at most {network.num_classes} classes",
            got=str(len(data.classes)),
            remedy="build the network with num_classes large enough",
        )
