"""What a comparison does for every seed and method: pretrain on a source task, adapt to a target task."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minitl import methods
from minitl.arrays import Array
from minitl.data.split import draw
from minitl.layers import cross_entropy
from minitl.methods import Method
from minitl.networks import Network, digits_irb
from minitl.records import Var
from minitl.tape import Tape
from minitl.training.data import digits, shift, spans, split
from minitl.training.fit import count_correct, fit
from minitl.training.optimizers import Adam
from minitl.training.schedules import cosine
from minitl.training.search import Outcome, Trial

# For each method the best of 0.001, 0.003, 0.01, 0.03, and of 0.1, 0.3, 1 where larger seemed better, by mean
# accuracy over two seeds that a comparison does not get to (10 and 11). The less a method trains, the larger a
# step it takes: one rate for all would be a handicap to some. All others take that of the methods that train blocks.
LEARNING_RATES = {"ft-last": 0.3, "ft-bias": 0.03, "ft-norm": 0.03, "back-razor": 0.001}
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Task:
    """What is learnt, and for how long; always by Adam, on a cosine schedule, with shifts by up to 2 pixels.

    With `apply`, adaptations apply gradients as they come: the same bytes, and hardly any gradients are held.
    """

    source: tuple[int, ...] = (0, 1, 2, 3, 4)
    target: tuple[int, ...] = (5, 6, 7, 8, 9)
    size: int = 24
    source_epochs: int = 3
    source_batch: int = 32
    source_lr: float = 0.003
    images: int = 200
    epochs: int = 10
    batch: int = 20
    apply: bool = False
    search_share: float = 0.25  # of the images, which judge a search

    def __str__(self) -> str:
        return f"digits_irb, batch {self.batch}, {self.size} px"

    @property
    def source_steps(self) -> int:
        """Training steps of a pretraining."""
        return self.source_epochs * len(spans(len(digits(self.source, self.size)), self.source_batch))

    def steps(self, *, search: bool = False) -> int:
        """Training steps of an adaptation."""
        images = self.images - round(self.search_share * self.images) * search
        return self.epochs * len(spans(images, self.batch))


@dataclass(frozen=True)
class Pretrained:
    """A network that knows the source task."""

    seed: int
    state: dict[str, Array]


@dataclass(frozen=True)
class Counted:
    """The cosine schedule, which adds a byte to a file at each step: its size tells another process how far it is."""

    file: Path | None

    def __call__(self, step: int, steps: int) -> float:
        """The factor of the learning rate."""
        if self.file:
            with open(self.file, "ab", buffering=0) as ticks:
                ticks.write(b".")
        return cosine(step, steps)


def pretrain(task: Task, seed: int, ticks: Path | None = None) -> Pretrained:
    """A fresh network, all of it trained on the source task."""
    network = methods.get("ft-all").apply(digits_irb(num_classes=len(task.source), seed=seed))
    fit(
        network,
        digits(task.source, task.size),
        optimizer=Adam(task.source_lr),
        epochs=task.source_epochs,
        batch_size=task.source_batch,
        schedule=Counted(ticks),
        augment=shift,
        seed=seed,
    )
    return Pretrained(seed, network.state_dict())


def adapt(task: Task, pretrained: Pretrained, trial: Trial, method: Method, ticks: Path | None = None) -> Outcome:
    """A copy of the pretrained network, with a fresh classifier, trained on the target task by the chosen method.

    `method` is what the trial's choice builds: a worker process may not know a method that was registered in another.
    """
    seed = trial.seed
    train, test = split(digits(task.target, task.size), task.images, seed)
    if trial.search:
        held = draw(train.labels, task.search_share, seed)
        train, test = train.take(~held), train.take(held)
    optimizer = Adam(trial.learning_rate)
    untimed = network(task, method, seed)  # one step of it: compiling the kernels is not the method's time
    fit(untimed, train.take(np.arange(2)), optimizer=Adam(1e-6), epochs=1, batch_size=2, augment=shift)
    adapted = network(task, method, seed, pretrained.state)
    start = time.thread_time()
    fit(
        adapted,
        train,
        optimizer=optimizer,
        epochs=task.epochs,
        batch_size=task.batch,
        schedule=Counted(ticks),
        augment=shift,
        seed=seed,
        apply=task.apply,
    )
    seconds = time.thread_time() - start
    logits = adapted.predict(test.images)
    right = count_correct(logits, test.labels) / len(test)
    loss = cross_entropy(Tape(training=False), Var(logits), test.labels)
    return Outcome(trial, right, float(loss.value), seconds)


def network(task: Task, method: Method, seed: int = 0, state: Mapping[str, Array] | None = None) -> Network:
    """`digits_irb` for the target task, trained by `method`; features from `state`, the classifier always fresh."""
    built = digits_irb(num_classes=len(task.target), seed=seed)
    if state is not None:
        fresh = {name: value for name, value in built.state_dict().items() if name.startswith("classifier.")}
        built.load_state_dict({**state, **fresh})
    return method.apply(built)
