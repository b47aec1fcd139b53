"""Methods compared on one's own network, weights and images.

For every method and seed a learning rate is searched, and then judged, on different images: the
seed holds out a part of the images to test on (unless the data have one of their own); of the
others it holds out a part again, on which each rate of one list is tried. The best of it, by
accuracy and then by loss, trains on all but the test part. So every method gets its rate in the
same way, and none has seen the images it is judged by.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minitl import data
from minitl.accounting import Ledger, predict
from minitl.data.source import Source
from minitl.data.split import draw
from minitl.files import read_bytes
from minitl.training.choice import Choice
from minitl.training.compare import Result
from minitl.training.progress import Bar
from minitl.training.recipe import Recipe
from minitl.training.settings import Settings

RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
WARM: set[Choice] = set()  # what has been compiled in this process


@dataclass(frozen=True)
class Trial:
    """One training run: a method, a seed and a learning rate; `search` is judged within the training part."""

    choice: Choice
    seed: int
    learning_rate: float
    search: bool


@dataclass(frozen=True)
class Outcome:
    """What a trial came to; `seconds` of one processor's time, the reading of images apart."""

    trial: Trial
    accuracy: float
    loss: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Outcome:
        """What `to_json` gave; raises KeyError, TypeError, ValueError or OverflowError where it is something else."""
        trial = stored["trial"]
        method, blocks, options = trial["choice"]
        what = Choice(str(method), blocks if blocks is None else int(blocks), tuple(map(str, options)))
        ran = Trial(what, int(trial["seed"]), float(trial["learning_rate"]), bool(trial["search"]))
        return cls(ran, *(float(stored[name]) for name in ("accuracy", "loss", "seconds")))


@dataclass(frozen=True)
class OwnResult(Result):
    """A method's outcome, and the learning rate found for each seed."""

    learning_rates: list[float]


Spread = Callable[[Callable[..., Outcome], Iterable[tuple[Any, ...]]], Generator[Outcome]]


@dataclass(frozen=True)
class Comparison:
    """What is compared: everything but the means. Without `rates`, each method takes its default learning rate."""

    path: Path
    recipe: Recipe
    choices: Sequence[Choice]
    seeds: int
    rates: Sequence[float] = RATES

    def searches(self) -> list[Trial]:
        """The trials that find learning rates; none where there is but one rate."""
        rates = self.rates if len(self.rates) > 1 else ()
        return [Trial(c, seed, rate, True) for c in self.choices for seed in range(self.seeds) for rate in rates]

    def finals(self, known: Sequence[Outcome]) -> list[Trial]:
        """The trials that count, once the searches are known."""
        return [
            Trial(choice, seed, self.best_rate(choice, seed, known), False)
            for choice in self.choices
            for seed in range(self.seeds)
        ]

    def best_rate(self, choice: Choice, seed: int, known: Sequence[Outcome]) -> float:
        """The rate of the best accuracy, then of the least loss, then the smallest; without a search, the only one."""
        own = [o for o in known if o.trial.search and (o.trial.choice, o.trial.seed) == (choice, seed)]
        best = min(own, key=lambda o: (-o.accuracy, o.loss, o.trial.learning_rate), default=None)
        if best:
            return best.trial.learning_rate
        return self.rates[0] if self.rates else self.recipe.settings_for(choice.method).learning_rate

    def about(self, images: Source) -> dict[str, Any]:
        """What decides the outcomes of its trials: they can be taken up again where this is the same."""
        weights = self.recipe.weights
        return {
            "data": images.digest,
            "network": self.recipe.network,
            "weights": hashlib.sha256(read_bytes(weights)).hexdigest() if weights else None,
            "source": self.recipe.source,
            "momentum": self.recipe.momentum,
            "augment": self.recipe.augment,
            "preprocessing": dict(self.recipe.preprocessing),
            "settings": dict(self.recipe.settings),
        }


def run(comparison: Comparison, spread: Spread, known: list[Outcome], shown: Bar) -> Generator[Outcome]:
    """Run all trials that are not `known`, and give each outcome when it is there."""
    done = {outcome.trial for outcome in known}
    outcomes = list(known)
    for trials in (comparison.searches, lambda: comparison.finals(outcomes)):
        left = [trial for trial in trials() if trial not in done]
        with closing(spread(attempt, [(comparison.path, comparison.recipe, trial) for trial in left])) as found:
            for outcome in found:
                outcomes.append(outcome)
                shown.advance(tell(outcome))
                yield outcome


def attempt(path: Path, recipe: Recipe, trial: Trial) -> Outcome:
    """One training run, from the files on disk: all that a worker needs is in the arguments."""
    images = data.load(path)
    settings = _settings(recipe, trial)
    train, test = settings.split(images)
    if trial.search:
        held = draw(images.labels[train], settings.held_out, trial.seed)
        train, test = train[~held], train[held]
    method = trial.choice.build()
    if trial.choice not in WARM:  # a step of it: compiling the kernels is not the method's time
        next(recipe.prepare(images, method, settings).trainer(images, train, test, settings, apply=recipe.apply).run())
        WARM.add(trial.choice)
    prepared = recipe.prepare(images, method, settings)
    trainer = prepared.trainer(images, train, test, settings, apply=recipe.apply, judge_all=False)
    start = time.thread_time()
    for _ in trainer.run():
        pass
    seconds = time.thread_time() - start
    row = trainer.progress.epochs[trainer.progress.best - 1 if settings.patience else -1]
    return Outcome(trial, row["accuracy"], row["held_out_loss"], seconds)


def results(comparison: Comparison, images: Source, known: Sequence[Outcome]) -> list[OwnResult]:
    """Every choice's outcomes by seed, and its step's account, put together."""
    return [_result(comparison, choice, account(comparison, choice, images), known) for choice in comparison.choices]


@dataclass(frozen=True)
class Account:
    """What one step of training by a choice holds, how many parameters it trains, and on what."""

    ledger: Ledger
    trained_parameters: int
    title: str


def account(comparison: Comparison, choice: Choice, images: Source) -> Account:
    """The account of a choice, from shapes alone. Raises where the method does not suit the network."""
    settings = comparison.recipe.settings_for(choice.method)
    prepared = comparison.recipe.prepare(images, choice.build(), settings)
    network, optimizer, resolution = prepared.network, settings.make_optimizer(), prepared.preprocessing.resolution
    if apply := comparison.recipe.apply:
        optimizer.begin(p for p in network.parameters() if p.trained)  # raises where it cannot
    held = predict(network, batch=settings.batch, resolution=resolution, optimizer_slots=optimizer.slots, apply=apply)
    return Account(held, network.trained_count, f"{network.name}, batch {settings.batch}, {resolution} px")


def tell(outcome: Outcome) -> str:
    """One line about a trial."""
    trial = outcome.trial
    what = f"seed {trial.seed}: {trial.choice}, learning rate {trial.learning_rate:g}"
    return f"{what}{' (search)' * trial.search}: accuracy {outcome.accuracy:.1%} in {outcome.seconds:.1f} s"


def _settings(recipe: Recipe, trial: Trial) -> Settings:
    asked = recipe.settings_for(trial.choice.method)
    return replace(asked, learning_rate=trial.learning_rate, seed=trial.seed)


def _result(comparison: Comparison, choice: Choice, held: Account, known: Sequence[Outcome]) -> OwnResult:
    finals = {trial for trial in comparison.finals(known) if trial.choice == choice}
    own = sorted((o for o in known if o.trial in finals), key=lambda o: o.trial.seed)
    totals = held.ledger.totals
    assert totals.peak_bytes is not None
    return OwnResult(
        method=choice.method,
        blocks=choice.blocks,
        options=choice.options,
        seeds=len(own),
        accuracy=[o.accuracy for o in own],
        kept_bytes=totals.kept_bytes,
        peak_bytes=totals.peak_bytes,
        total_bytes=totals.total_bytes,
        trained_parameters=held.trained_parameters,
        flops=totals.flops.total,
        seconds=float(np.mean([o.seconds for o in own])),
        learning_rates=[o.trial.learning_rate for o in own],
    )
