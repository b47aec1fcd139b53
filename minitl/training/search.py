"""Trials: each method's learning rate is searched, the same way for all, and then judged on other images.

A trial is one training run. The trials of a search are judged by a part of the training images, held
out; the best rate, by accuracy and then by loss, trains on all of them, and is judged by the test.
"""

from __future__ import annotations

import statistics
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from minitl.accounting import Ledger
from minitl.errors import NotFiniteError
from minitl.training.choice import Choice
from minitl.training.progress import Bar

MOST_SEEDS = 1000


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

    def __str__(self) -> str:
        trial = self.trial
        what = f"seed {trial.seed}: {trial.choice}, learning rate {trial.learning_rate:g}"
        return f"{what}{' (search)' * trial.search}: accuracy {self.accuracy:.1%} in {self.seconds:.1f} s"

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
class Result:
    """One method's outcome over all seeds.

    `seeds` is how many there were (0, 1, ...); `accuracy`, the fraction of the test set correct, and
    `learning_rates` have one number for each. `kept_bytes`, `peak_bytes`, `total_bytes` and `flops` are of one
    training step, `trained_parameters` is a count, `seconds` the mean time of a run on one processor, other
    programs' apart.
    """

    method: str
    blocks: int | None
    options: tuple[str, ...]
    seeds: int
    accuracy: list[float]
    kept_bytes: int
    peak_bytes: int
    total_bytes: int
    trained_parameters: int
    flops: int
    seconds: float
    learning_rates: list[float]

    @property
    def choice(self) -> Choice:
        """What it is the outcome of."""
        return Choice(self.method, self.blocks, self.options)

    @property
    def percent(self) -> float:
        """The mean accuracy over the seeds, in percent."""
        return 100 * statistics.mean(self.accuracy)

    @property
    def spread(self) -> float:
        """One standard deviation over the seeds, in percent; 0 of a single one."""
        return 100 * statistics.stdev(self.accuracy) if self.seeds > 1 else 0.0


@dataclass(frozen=True)
class Account:
    """What one step of training by a choice holds, how many parameters it trains, and on what."""

    ledger: Ledger
    trained_parameters: int
    title: str


Spread = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Generator[Any]]


@dataclass(frozen=True)
class Comparison(ABC):
    """Which methods and seeds are compared, at which learning rates; what is trained on, a subclass knows.

    Without `rates`, each method takes its default; a single one is taken as it is. With `search_once`, seed 0
    searches for all seeds, else each for itself.
    """

    choices: Sequence[Choice]
    seeds: int
    rates: Sequence[float]
    search_once: bool = False

    @abstractmethod
    def default_rate(self, choice: Choice) -> float:
        """The learning rate where none is given."""

    @abstractmethod
    def job(self, trial: Trial) -> tuple[Any, ...]:
        """A function that gives a trial's outcome, anywhere, and its arguments."""

    @abstractmethod
    def account(self, choice: Choice) -> Account:
        """The account of a choice, from shapes alone. Raises where the method does not suit the network."""

    def searches(self) -> list[Trial]:
        """The trials that find learning rates; none where there is but one rate."""
        rates = self.rates if len(self.rates) > 1 else ()
        seeds = range(1 if self.search_once else self.seeds)
        return [Trial(c, seed, rate, True) for c in self.choices for seed in seeds for rate in rates]

    def finals(self, known: Sequence[Outcome]) -> list[Trial]:
        """The trials that count, once the searches are known."""
        return [
            Trial(choice, seed, self.best_rate(choice, seed, known), False)
            for choice in self.choices
            for seed in range(self.seeds)
        ]

    def best_rate(self, choice: Choice, seed: int, known: Sequence[Outcome]) -> float:
        """The rate of the best accuracy, then of the least loss, then the smallest; without a search, the only one."""
        searched = {Trial(choice, 0 if self.search_once else seed, rate, True) for rate in self.rates}
        own = [outcome for outcome in known if outcome.trial in searched]
        best = min(own, key=lambda o: (-o.accuracy, o.loss, o.trial.learning_rate), default=None)
        if best:
            return best.trial.learning_rate
        return self.rates[0] if self.rates else self.default_rate(choice)

    def run(self, spread: Spread, known: Sequence[Outcome], shown: Bar) -> Generator[Outcome]:
        """Run all trials that are not `known`, and give each outcome when it is there."""
        outcomes = list(known)
        for searches in (True, False):
            jobs = [(trial, *self.job(trial)) for trial in self.left(outcomes) if trial.search == searches]
            with closing(spread(_attempt, jobs)) as found:
                for outcome in found:
                    outcomes.append(outcome)
                    shown.advance(str(outcome))
                    yield outcome

    def left(self, known: Sequence[Outcome]) -> list[Trial]:
        """The trials that are not known; before the searches are, not all have the rates they will have."""
        done = {outcome.trial for outcome in known}
        return [trial for trial in (*self.searches(), *self.finals(known)) if trial not in done]

    def results(self, accounts: Mapping[Choice, Account], known: Sequence[Outcome]) -> list[Result]:
        """Each choice's outcomes in the order of their seeds, with its step's account; of the choices that have any."""
        finals = set(self.finals(known))
        judged = sorted((o for o in known if o.trial in finals), key=lambda o: o.trial.seed)
        own = {choice: [o for o in judged if o.trial.choice == choice] for choice in self.choices}
        return [_result(choice, accounts[choice], outcomes) for choice, outcomes in own.items() if outcomes]


def _result(choice: Choice, account: Account, outcomes: Sequence[Outcome]) -> Result:
    totals = account.ledger.totals
    assert totals.peak_bytes is not None
    return Result(
        method=choice.method,
        blocks=choice.blocks,
        options=choice.options,
        seeds=len(outcomes),
        accuracy=[o.accuracy for o in outcomes],
        kept_bytes=totals.kept_bytes,
        peak_bytes=totals.peak_bytes,
        total_bytes=totals.total_bytes,
        trained_parameters=account.trained_parameters,
        flops=totals.flops.total,
        seconds=sum(o.seconds for o in outcomes) / len(outcomes),
        learning_rates=[o.trial.learning_rate for o in outcomes],
    )


def _attempt(trial: Trial, function: Callable[..., Outcome], *arguments: Any) -> Outcome:
    """The outcome of a trial; a search at too large a rate has the worst there is."""
    try:
        return function(*arguments)
    except NotFiniteError:
        if not trial.search:
            raise
        return Outcome(trial, 0.0, sys.float_info.max, 0.0)
