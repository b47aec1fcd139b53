"""Compare methods: adapt one pretrained network to a new task with each, and weigh accuracy against memory.

For every seed, `digits_irb` learns the digits 0 to 4; from there each method adapts it to the
digits 5 to 9, of which it sees 200 labelled images. The images of 5 to 9 left over are the
test. A seed decides the initial weights, the split, the order and the shifts of the images, so
the spread over seeds is that of the whole experiment. The images are of 13 writers, who
wrote for both tasks: only the digits are new.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from minitl import methods
from minitl.accounting import Ledger, predict
from minitl.arrays import Array
from minitl.errors import UsageError, ValueRangeError, unknown
from minitl.kernels import threads
from minitl.kernels.heap import keep_freed_memory
from minitl.networks import Network, digits_irb
from minitl.training.data import digits, shift, split
from minitl.training.fit import accuracy, fit
from minitl.training.optimizers import Adam
from minitl.training.progress import Silent, bar


class Choice(NamedTuple):
    """A method, how many blocks it tunes where that is a choice, and options.

    Options are `int8`, `checkpoint`, and `WHAT=RULE` for the backward rule of an activation or role.
    """

    method: str
    blocks: int | None = None
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.method, *([str(self.blocks)] if self.blocks else ()), *self.options))

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read `mobiletl:2`, `ft-all`, `mobiletl:2+int8+hard_swish=few2`."""
        name, *options = text.strip().split("+")
        method, colon, blocks = name.partition(":")
        if colon and not blocks.isdecimal():
            raise ValueRangeError(op="compare", expected="METHOD:BLOCKS", got=repr(name))
        return cls(method, int(blocks) if colon else None, tuple(options))

    def build(self) -> methods.Method:
        """The method; raises on a name, number or option there is not."""
        rules = dict(option.split("=", 1) for option in self.options if "=" in option)
        for option in self.options:
            if "=" not in option and option not in ("int8", "checkpoint"):
                raise unknown("option", option, ("int8", "checkpoint", "WHAT=RULE"), op="compare")
        flags = {"quantised": "int8" in self.options, "checkpoint": "checkpoint" in self.options}
        return methods.get(self.method, self.blocks, rules=rules, **flags)


CHOICES = (
    Choice("ft-last"),
    Choice("ft-bias"),
    Choice("ft-norm"),
    Choice("ft-blocks", 2),
    Choice("mobiletl", 2),
    Choice("mobiletl-exact", 2),
    Choice("ft-all"),
)


# For each method the best of 0.001, 0.003, 0.01, 0.03, and of 0.1, 0.3, 1 where larger seemed better, by mean
# accuracy over two seeds that a comparison does not get to (10 and 11). The less a method trains, the larger a
# step it takes: one rate for all would be a handicap to some. All others take that of the methods that train blocks.
LEARNING_RATES = {"ft-last": 0.3, "ft-bias": 0.03, "ft-norm": 0.03}
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Task:
    """What is learnt, and for how long; always by Adam, on a cosine schedule, with shifts by up to 2 pixels."""

    source: tuple[int, ...] = (0, 1, 2, 3, 4)
    target: tuple[int, ...] = (5, 6, 7, 8, 9)
    size: int = 24
    source_epochs: int = 3
    source_batch: int = 32
    source_lr: float = 0.003
    images: int = 200
    epochs: int = 10
    batch: int = 20


@dataclass(frozen=True)
class Result:
    """One method's outcome over all seeds.

    `seeds` is how many there were (0, 1, ...), `accuracy` the fraction of the test set correct
    for each. `kept_bytes`, `peak_bytes`, `total_bytes` and `flops` are of one training step, `trained_parameters`
    is a count, `seconds` the mean wall time of an adaptation on one thread.
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

    @property
    def choice(self) -> Choice:
        """What it is the outcome of."""
        return Choice(self.method, self.blocks, self.options)


@dataclass(frozen=True)
class Pretrained:
    """A network that knows the source task."""

    seed: int
    state: dict[str, Array]


@dataclass(frozen=True)
class Run:
    """One adaptation."""

    choice: Choice
    seed: int
    accuracy: float
    seconds: float


def compare(
    choices: Sequence[Choice] = CHOICES,
    *,
    seeds: int = 3,
    task: Task | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> list[Result]:
    """Pretrain and adapt with each choice and seed; the results in the order of `choices`.

    Runs are spread over `workers` processes of one thread each, by default one a core: the steps
    of a small network are too short to be shared among threads. The results are the same with any
    number, `seconds` apart. The processes are started afresh ("spawn"), which imports the main
    script: there, call this under `if __name__ == "__main__":`. `progress` tells on stderr how far
    it is. Raises UnknownNameError, ValueRangeError or UsageError.
    """
    task = task or Task()
    if seeds < 1 or not choices or len(set(choices)) < len(choices):
        raise ValueRangeError(
            op="compare", expected="at least one seed and one method, each once", got=f"{seeds}, {[*map(str, choices)]}"
        )
    held = [ledger(choice, task) for choice in choices]  # a method unknown is told before any work is done
    runs: list[Run] = []
    jobs = seeds * (1 + len(choices))
    pool = ProcessPoolExecutor(min(workers or os.cpu_count() or 1, jobs), get_context("spawn"), _settle)
    with pool, bar("compare", jobs) if progress else nullcontext(Silent()) as shown:
        shown.say(f"seeds: {seeds}, each pretrained once, adapted with {len(choices)} methods; kernels compile first")
        waiting: set[Future[Pretrained | Run]] = {pool.submit(pretrain, task, seed) for seed in range(seeds)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for outcome in map(_outcome, done):
                    if isinstance(outcome, Pretrained):
                        waiting |= {pool.submit(adapt, task, outcome, choice) for choice in choices}
                    else:
                        runs.append(outcome)
                    shown.advance(_told(outcome))
        except BaseException:  # an error or Ctrl-C: begin nothing more, or leaving the pool would wait for all of it
            pool.shutdown(cancel_futures=True)
            raise
    return [_result(choice, kept, task, runs) for choice, kept in zip(choices, held, strict=True)]


def pretrain(task: Task, seed: int) -> Pretrained:
    """A fresh network, all of it trained on the source task."""
    network = methods.get("ft-all").apply(digits_irb(num_classes=len(task.source), seed=seed))
    fit(
        network,
        digits(task.source, task.size),
        optimizer=Adam(task.source_lr),
        epochs=task.source_epochs,
        batch_size=task.source_batch,
        augment=shift,
        seed=seed,
    )
    return Pretrained(seed, network.state_dict())


def adapt(task: Task, pretrained: Pretrained, choice: Choice) -> Run:
    """A copy of the pretrained network, with a fresh classifier, trained on the target task by the chosen method."""
    seed = pretrained.seed
    train, test = split(digits(task.target, task.size), task.images, seed)
    lr = LEARNING_RATES.get(choice.method, LEARNING_RATE)
    untimed = network(task, choice, seed)  # one step of it: compiling the kernels is not the method's time
    fit(untimed, train.take(np.arange(2)), optimizer=Adam(lr), epochs=1, batch_size=2, augment=shift)
    adapted = network(task, choice, seed, pretrained.state)
    start = time.perf_counter()
    fit(
        adapted,
        train,
        optimizer=Adam(lr),
        epochs=task.epochs,
        batch_size=task.batch,
        augment=shift,
        seed=seed,
    )
    seconds = time.perf_counter() - start
    return Run(choice, seed, accuracy(adapted, test), seconds)


def network(task: Task, choice: Choice, seed: int = 0, state: Mapping[str, Array] | None = None) -> Network:
    """`digits_irb` for the target task, trained as chosen; features from `state`, the classifier always fresh."""
    built = digits_irb(num_classes=len(task.target), seed=seed)
    if state is not None:
        fresh = {name: value for name, value in built.state_dict().items() if name.startswith("classifier.")}
        built.load_state_dict({**state, **fresh})
    return choice.build().apply(built)


def ledger(choice: Choice, task: Task | None = None) -> Ledger:
    """What one step of training on the target task holds, with Adam's state."""
    task = task or Task()
    slots = Adam(LEARNING_RATE).slots
    return predict(network(task, choice), batch=task.batch, resolution=task.size, optimizer_slots=slots)


def _settle() -> None:
    """In a worker process: one thread, freed memory kept; and on Ctrl-C it is the parent that speaks."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threads.set_threads(1)


def _outcome(future: Future[Pretrained | Run]) -> Pretrained | Run:
    try:
        return future.result()
    except BrokenProcessPool:
        raise UsageError(
            "a worker process ended unexpectedly", remedy="in a script, call this under `if __name__ == '__main__':`"
        ) from None


def _told(outcome: Pretrained | Run) -> str:
    """One line about what has just finished."""
    if isinstance(outcome, Pretrained):
        return f"seed {outcome.seed}: pretrained"
    return f"seed {outcome.seed}: {outcome.choice}, accuracy {outcome.accuracy:.1%} in {outcome.seconds:.1f} s"


def _result(choice: Choice, held: Ledger, task: Task, runs: Sequence[Run]) -> Result:
    """A choice's runs, in the order of their seeds, and its step's account, put together."""
    own = sorted((run for run in runs if run.choice == choice), key=lambda run: run.seed)
    assert held.totals.peak_bytes is not None
    return Result(
        method=choice.method,
        blocks=choice.blocks,
        options=choice.options,
        seeds=len(own),
        accuracy=[run.accuracy for run in own],
        kept_bytes=held.totals.kept_bytes,
        peak_bytes=held.totals.peak_bytes,
        total_bytes=held.totals.total_bytes,
        trained_parameters=sum(array.size for array in network(task, choice).trained_parameters().values()),
        flops=held.totals.flops.total,
        seconds=sum(run.seconds for run in own) / len(own),
    )
