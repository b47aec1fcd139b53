"""A training run that can stop after any step and go on to the same bytes.

Whatever is drawn at random (the order of an epoch, what augmentation and dropout do) follows from
the seed, the epoch and the batch, and not from what was drawn before. So the state of a run is
the network's and the optimizer's arrays, and how far it is (`Progress`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minitl.arrays import Array, is_count
from minitl.data.batches import Part
from minitl.errors import UsageError
from minitl.layers import cross_entropy
from minitl.networks.network import Network
from minitl.step import Loss
from minitl.tape import Tape
from minitl.training.data import spans
from minitl.training.fit import count_correct
from minitl.training.settings import Settings
from minitl.training.steps import take_step


@dataclass
class Progress:
    """How far a run is: finished epochs, and within the one under way the batches done and what they gave."""

    epochs: list[dict[str, Any]] = field(default_factory=list)  # {epoch, loss, train_accuracy, accuracy, held_out_loss}
    batches: int = 0
    images: int = 0
    correct: int = 0
    loss: float = 0.0  # summed over the images
    best: int = 0  # the epoch of the best held-out accuracy, from 1

    def to_json(self) -> dict[str, Any]:
        """As it is stored in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        """What `to_json` gave; raises KeyError, TypeError or ValueError where it is something else."""
        counts = {name: stored[name] for name in ("batches", "images", "correct", "best")}
        rows, loss = stored["epochs"], stored["loss"]
        numbers = [row[name] for row in rows for name in ("loss", "train_accuracy", "accuracy", "held_out_loss")]
        if not all(is_count(count, least=0) for count in counts.values()) or not all(
            type(number) is float for number in [*numbers, loss]
        ):
            raise TypeError("progress is not in numbers")
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)) or counts["best"] > len(rows):
            raise ValueError("epochs are not 1, 2, ...")
        return cls(epochs=rows, loss=loss, **counts)


class Trainer:
    """Trains, in place, what the network's method trains, on `train`; judges it on `held_out` after every epoch.

    With `apply`, gradients are applied as they come: the same bytes, and hardly any gradients are held. Without
    `judge_all`, only what is needed is judged: the last epoch, or all of them where patience asks for it.
    """

    def __init__(
        self,
        network: Network,
        train: Part,
        held_out: Part,
        settings: Settings,
        *,
        apply: bool = False,
        judge_all: bool = True,
    ) -> None:
        self.network, self.train, self.held_out, self.settings = network, train, held_out, settings
        self.apply, self.judge_all = apply, judge_all or settings.patience > 0
        self.optimizer, self.progress = settings.make_optimizer(), Progress()
        self.best_state: dict[str, Array] = {}
        self.finished = False  # set where a model is read whose training is over
        self.spans = spans(len(train), min(settings.batch, len(train)))
        self.schedule = settings.make_schedule(len(self.spans))
        weights = class_weights(settings.class_weights, train)
        self.loss: Loss = partial(cross_entropy, smoothing=settings.label_smoothing, weights=weights)
        if apply:
            self.optimizer.begin(p for p in network.parameters() if p.trained)

    @property
    def steps(self) -> int:
        """Steps of the whole run, if it is not stopped early."""
        return self.settings.epochs * len(self.spans)

    @property
    def steps_done(self) -> int:
        """Steps taken."""
        return len(self.progress.epochs) * len(self.spans) + self.progress.batches

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or accuracy has not grown for too long."""
        over = len(self.progress.epochs)
        stalled = 0 < self.settings.patience <= over - self.progress.best
        return self.finished or stalled or over >= self.settings.epochs

    def run(self) -> Iterator[float | dict[str, Any]]:
        """Go on to the end; give the loss after each step, and what an epoch came to after each epoch.

        Between two of these the run may be saved. Raises ValueRangeError for a loss or an update
        that is not finite, before it reaches a parameter.
        """
        while not self.done:
            yield from self._steps()
            yield self._end_epoch()

    def _steps(self) -> Iterator[float]:
        """The steps left of the epoch under way."""
        progress, epoch, seed = self.progress, len(self.progress.epochs), self.settings.seed
        order = self.train.order(seed, epoch)
        groups = [order[start:stop] for start, stop in self.spans[progress.batches :]]
        for images, labels in self.train.batches(groups, seed, epoch):
            dropout = int(np.random.SeedSequence((seed, epoch, progress.batches, 1)).generate_state(1)[0])
            self.network.begin_step(self.steps_done, self.steps)
            scale = self.schedule(self.steps_done, self.steps)
            loss, logits = take_step(
                self.network,
                self.optimizer,
                images,
                labels,
                lr_scale=scale,
                dropout=dropout,
                loss=self.loss,
                apply=self.apply,
            )
            progress.batches += 1
            progress.images += len(labels)
            progress.correct += count_correct(logits, labels)
            progress.loss += loss * len(labels)
            yield loss

    def _end_epoch(self) -> dict[str, Any]:
        was, epoch = self.progress, len(self.progress.epochs) + 1
        accuracy = loss = math.nan
        if self.judge_all or epoch == self.settings.epochs:
            judged = evaluate(self.network, self.held_out, self.settings.batch)
            accuracy, loss = judged.accuracy, judged.loss
        row = {
            "epoch": epoch,
            "loss": was.loss / was.images,
            "train_accuracy": was.correct / was.images,
            "accuracy": accuracy,
            "held_out_loss": loss,
        }
        better = not was.best or accuracy > was.epochs[was.best - 1]["accuracy"]
        if better and self.settings.patience:
            self.best_state = self.network.state_dict()
        self.progress = Progress([*was.epochs, row], best=epoch if better else was.best)
        if self.done and self.settings.patience:
            self.network.load_state_dict(self.best_state)
        return row


@dataclass(frozen=True)
class Judged:
    """What a network makes of some images: how many there are, and are right, of each class; the mean loss."""

    count: Array
    correct: Array
    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction that is right."""
        return int(self.correct.sum()) / int(self.count.sum())


def evaluate(network: Network, part: Part, batch: int, tell: Callable[[], None] = lambda: None) -> Judged:
    """Classify the images of a part, in evaluation mode; `tell` is called after each batch."""
    count = np.zeros(len(part.source.classes), np.int64)
    correct, loss = count.copy(), 0.0
    for images, labels in part.in_order(batch):
        tape = Tape(training=False)
        logits = network(tape, images)
        loss += float(cross_entropy(tape, logits, labels).value) * len(labels)
        np.add.at(count, labels, 1)
        np.add.at(correct, labels, logits.value.argmax(axis=1) == labels)
        tell()
    return Judged(count, correct, loss / len(part))


def class_weights(text: str, part: Part) -> list[float] | None:
    """Read `balanced` (N / (K N_k), so that every class counts alike) or `1,2.5,...`; None where it is empty."""
    if not text:
        return None
    classes = len(part.source.classes)
    if text == "balanced":
        count = np.bincount(part.source.labels[part.indices], minlength=classes)
        return [float(w) for w in len(part) / (np.count_nonzero(count) * np.maximum(count, 1))]
    try:
        weights = [float(number) for number in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != classes:
        raise UsageError(op="train", expected=f"class weights `balanced` or {classes} numbers", got=repr(text[:80]))
    return weights
