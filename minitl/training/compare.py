"""Compare methods: adapt one pretrained network to a new task with each, and weigh accuracy against memory.

For every seed, `digits_irb` learns the digits 0 to 4; from there each method adapts it to the
digits 5 to 9, of which it sees 200 labelled images. The images of 5 to 9 left over are the
test. A seed decides the initial weights, the split, the order and the shifts of the images, so
the spread over seeds is that of the whole experiment. The images are of 13 writers, who
wrote for both tasks: only the digits are new.

Where learning rates are searched, seed 0 searches for all: every method trains with each rate on
three quarters of its 200 images, and the rest judges. (They may be among the images that another
seed tests on.)
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from minitl.accounting import Ledger, predict
from minitl.checks import expect_count
from minitl.errors import ValueRangeError
from minitl.training.adapt import LEARNING_RATE, LEARNING_RATES, Pretrained, Task, adapt, network, pretrain
from minitl.training.choice import CHOICES, Choice
from minitl.training.optimizers import Adam
from minitl.training.progress import Bar, Silent, bar
from minitl.training.search import MOST_SEEDS, Account, Comparison, Outcome, Result, Spread, Trial
from minitl.training.store import Store
from minitl.training.workers import count, spread

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Demonstration(Comparison):
    """What is compared, on the bundled digits."""

    task: Task = field(kw_only=True)
    ticks: Path | None = field(default=None, kw_only=True)  # grows by a byte at each step, in whatever process
    sources: dict[int, Pretrained] = field(default_factory=dict, kw_only=True)  # by seed, once `run` has them

    def default_rate(self, choice: Choice) -> float:
        """As found for this task."""
        return LEARNING_RATES.get(choice.method, LEARNING_RATE)

    def job(self, trial: Trial) -> tuple[Any, ...]:
        """From the pretrained network of its seed."""
        return adapt, self.task, self.sources[trial.seed], trial, trial.choice.build(), self.ticks

    def about(self) -> dict[str, Any]:
        """What decides the outcomes of its trials: they can be taken up again where this is the same."""
        return {"task": asdict(self.task)}

    def account(self, choice: Choice) -> Account:
        """The account of a choice, with Adam's state. Raises where the method does not suit the network."""
        return Account(ledger(choice, self.task), network(self.task, choice.build()).trained_count, str(self.task))

    def run(self, spread: Spread, known: Sequence[Outcome], shown: Bar) -> Generator[Outcome]:
        """Pretrain for the seeds that have trials left, and run those."""
        seeds = sorted({trial.seed for trial in self.left(known)})
        with closing(spread(pretrain, [(self.task, seed, self.ticks) for seed in seeds])) as pretrained:
            for source in pretrained:
                shown.advance(f"seed {source.seed}: pretrained")
                self.sources[source.seed] = source
        yield from super().run(spread, known, shown)

    def work(self, known: Sequence[Outcome]) -> tuple[int, int]:
        """How many steps, and how many trainings, `run` will take."""
        left = self.left(known)
        seeds = {trial.seed for trial in left}
        steps = sum(self.task.steps(search=trial.search) for trial in left)
        return len(seeds) * self.task.source_steps + steps, len(seeds) + len(left)


def compare(choices: Sequence[Choice] = CHOICES, **how: Any) -> list[Result]:
    """Pretrain and adapt with each choice and seed; the results in the order of `choices`. `how` is as of `comparing`.

    Runs are spread over `workers` processes of one thread each, by default one a core: the steps
    of a small network are too short to be shared among threads. The results are the same with any
    number, `seconds` apart; with one, nothing but this process works. `progress` tells on stderr how far it is.
    Raises UnknownNameError, ValueRangeError or UsageError.
    """
    *_, results = comparing(choices, **how)
    return results


def comparing(
    choices: Sequence[Choice] = CHOICES,
    *,
    seeds: int = 3,
    rates: Sequence[float] = (),
    task: Task | None = None,
    workers: int | None = None,
    progress: bool = False,
    out: Path | None = None,
    resume: bool = False,
) -> Iterator[list[Result]]:
    """As `compare`, but give the results so far after every adaptation, of the choices that have any.

    Of more than one of `rates` the best is searched; without any, each method takes its default. Every trial's
    outcome is kept in the file `out`; with `resume`, those there are not repeated.
    """
    task = task or Task()
    if len(set(choices)) < max(1, len(choices)):
        raise ValueRangeError(op="compare", expected="at least one method, each once", got=str([*map(str, choices)]))
    seeds, workers = expect_count("seeds", seeds, most=MOST_SEEDS, op="compare"), count(workers)
    with tempfile.TemporaryDirectory(prefix="minitl-") as folder:
        ticks = Path(folder) / "steps"
        ticks.touch()
        demo = Demonstration(choices, seeds, rates, search_once=True, task=task, ticks=ticks)
        accounts = {choice: demo.account(choice) for choice in choices}  # a method unknown is told before any work
        store = Store(out, demo.about(), resume=resume)
        yield demo.results(accounts, store.outcomes)
        shows = bar("compare", *demo.work(store.outcomes)) if progress else nullcontext(Silent())
        with store.told(), shows as shown:
            told = f"seeds: {seeds}, each pretrained once, adapted with {len(choices)} methods"
            shown.say(f"{told}; kernels compile first")
            shown.follow(lambda: ticks.stat().st_size)
            with closing(demo.run(partial(spread, workers=workers), store.outcomes, shown)) as outcomes:
                for outcome in outcomes:
                    store.add(outcome)
                    yield demo.results(accounts, store.outcomes)


def ledger(choice: Choice, task: Task | None = None) -> Ledger:
    """What one step of training on the target task holds, with Adam's state."""
    task = task or Task()
    slots = Adam(LEARNING_RATE).slots
    built = network(task, choice.build())
    return predict(built, batch=task.batch, resolution=task.size, optimizer_slots=slots, apply=task.apply)
