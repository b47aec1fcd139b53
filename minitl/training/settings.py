"""How a network is trained: everything but the network, the method and the images. Stored with the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

from minitl.arrays import Array
from minitl.checks import as_count, as_number
from minitl.data.source import Source
from minitl.data.split import split
from minitl.errors import UsageError, ValueRangeError, brief, lookup, unknown
from minitl.training.optimizers import SGD, Adam, AdamW, Optimizer
from minitl.training.schedules import Schedule, constant, cosine

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "sgd": SGD,
    "nesterov": partial(SGD, nesterov=True),
}
SCHEDULES: dict[str, Callable[..., float]] = {"cosine": cosine, "constant": constant}

# Adam's learning rates for pretrained weights. The less a method trains, the larger a step it takes. No rate is best
# everywhere: those that tune blocks learn photographs better at 0.0003, and digits at 0.001 or above. Numbers are in
# tutorials/photographs.md.
LEARNING_RATES = {"ft-last": 0.003, "ft-bias": 0.003, "ft-all": 0.0003}
LEARNING_RATE = 0.001
FROM_SCRATCH = 0.003
SGD_FACTOR = 10.0  # SGD's step is proportional to the gradient, Adam's is not: a rough exchange rate


@dataclass(frozen=True)
class Settings:
    """What decides, with the data, every bit of a training run.

    `held_out` is the share of images to judge by, drawn by `seed`, where the data have no such part
    of their own; with `per_class` above 0, so many of each class are trained on instead (see
    `data.split`). `warmup` counts epochs, `patience` the epochs without a better held-out accuracy
    after which training stops (0: never) and goes back to the best. `clip_norm` of 0 does not clip.
    `class_weights` is empty, `balanced` (N / (K N_k)), or numbers separated by commas.
    """

    epochs: int = 10
    batch: int = 16
    optimizer: str = "adam"
    learning_rate: float = LEARNING_RATE
    weight_decay: float = 0.0
    decay_vectors: bool = False
    schedule: str = "cosine"
    warmup: float = 0.0
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str = ""
    held_out: float = 0.2
    per_class: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check it; numbers may come in any type, and become those that are stored."""
        for key in fields(self):
            object.__setattr__(self, key.name, _plain(key.name, getattr(self, key.name), type(key.default)))
        checks = (
            ("epochs", "a whole number from 1 to 1,000,000", 1 <= self.epochs <= 10**6),
            ("batch", "a whole number of at least 1", self.batch >= 1),
            ("warmup", "at least 0 and less than the epochs", 0 <= self.warmup < self.epochs),
            ("label_smoothing", "from 0 to 1", 0 <= self.label_smoothing <= 1),
            ("patience", "at least 0", self.patience >= 0),
            ("per_class", "at least 0", self.per_class >= 0),
            ("seed", "from 0 to 2^63 - 1", 0 <= self.seed < 2**63),
        )
        for name, expected, good in checks:
            if not good:
                raise ValueRangeError(op="train", expected=f"{name} {expected}", got=str(getattr(self, name)))
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        self.make_optimizer()

    def split(self, source: Source) -> tuple[Array, Array]:
        """Indices of the images to train on and of those held out; raises ValueRangeError."""
        return split(source, self.held_out, self.seed, self.per_class)

    def make_optimizer(self) -> Optimizer:
        """A new optimizer; raises where its numbers are out of range."""
        return lookup("optimizer", self.optimizer, OPTIMIZERS)(
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            decay_vectors=self.decay_vectors,
            clip_norm=self.clip_norm or None,
        )

    def make_schedule(self, steps_an_epoch: int) -> Schedule:
        """The factor on the learning rate at each step."""
        return partial(SCHEDULES[self.schedule], warmup=int(self.warmup * steps_an_epoch))

    def to_json(self) -> dict[str, Any]:
        """As it is stored with a model."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Settings:
        """What `to_json` gave; raises TypeError or KeyError where it is something else."""
        defaults = asdict(cls())
        if stored.keys() != defaults.keys():
            raise KeyError("training")
        for name, default in defaults.items():
            if type(stored[name]) is not type(default):
                raise TypeError(f"{name} is {stored[name]!r}")
        return cls(**stored)


def _plain(name: str, value: object, kind: type) -> object:
    """`value` as the plain int, float, bool or str that it has to be; raises ValueRangeError."""
    read: dict[type, Callable[[Any], object]] = {int: partial(as_count, least=-sys.maxsize), float: as_number}
    found = read[kind](value) if kind in read else value
    if not isinstance(found, kind):
        what = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a text"}[kind]
        raise ValueRangeError(op="train", expected=f"{name} to be {what}", got=brief(repr(value)))
    return found


def default_learning_rate(method: str, optimizer: str, *, pretrained: bool) -> float:
    """A learning rate with which training, or fine-tuning pretrained weights, works."""
    rate = LEARNING_RATES.get(method, LEARNING_RATE) if pretrained else FROM_SCRATCH
    return rate * SGD_FACTOR if optimizer in ("sgd", "nesterov") else rate


def differences(begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise UsageError for the first thing asked for that is not what a run was begun with."""
    for name, value in asked.items():
        if value != begun[name]:
            raise UsageError(
                f"was begun with {name.replace('_', ' ')} {begun[name]}, not {value}",
                op="resume",
                remedy="leave the option out to go on as it was begun, or begin a new run, from what this one learnt "
                "with its file as --weights: give another --out, and --method and --blocks as you want them",
            )
