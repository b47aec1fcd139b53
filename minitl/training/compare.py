"""Compare methods: adapt one pretrained network to a new task with each, and weigh accuracy against memory.

For every seed, `digits_irb` learns the digits 0 to 4; from there each method adapts it to the
digits 5 to 9, of which it sees 200 labelled images. The images of 5 to 9 left over are the
test. A seed decides the initial weights, the split, the order and the shifts of the images, so
the spread over seeds is that of the whole experiment. The images are of 13 writers, who
wrote for both tasks: only the digits are new.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from minitl.accounting import Ledger, predict
from minitl.checks import expect_count
from minitl.errors import ValueRangeError
from minitl.training.adapt import LEARNING_RATE, Adaptation, Task, adapt, network, pretrain
from minitl.training.choice import CHOICES, Choice
from minitl.training.optimizers import Adam
from minitl.training.progress import Bar, Silent, bar
from minitl.training.workers import default_workers, spread


@dataclass(frozen=True)
class Result:
    """One method's outcome over all seeds.

    `seeds` is how many there were (0, 1, ...), `accuracy` the fraction of the test set correct
    for each. `kept_bytes`, `peak_bytes`, `total_bytes` and `flops` are of one training step, `trained_parameters`
    is a count, `seconds` the mean time of an adaptation on one processor, other programs' apart.
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
    number, `seconds` apart; with one, nothing but this process works. `progress` tells on stderr how far it is.
    Raises UnknownNameError, ValueRangeError or UsageError.
    """
    *_, results = comparing(choices, seeds=seeds, task=task, workers=workers, progress=progress)
    return results


def comparing(
    choices: Sequence[Choice] = CHOICES,
    *,
    seeds: int = 3,
    task: Task | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Iterator[list[Result]]:
    """As `compare`, but give the results so far after every adaptation, of the choices that have any."""
    task = task or Task()
    if len(set(choices)) < max(1, len(choices)):
        raise ValueRangeError(op="compare", expected="at least one method, each once", got=str([*map(str, choices)]))
    seeds = expect_count("seeds", seeds, op="compare")
    workers = default_workers() if workers is None else expect_count("workers", workers, op="compare")
    held = [(choice, ledger(choice, task)) for choice in choices]  # a method unknown is told before any work is done
    runs: list[Adaptation] = []
    steps = seeds * (task.source_steps + len(choices) * task.steps)
    with bar("compare", steps, seeds * (1 + len(choices))) if progress else nullcontext(Silent()) as shown:
        shown.say(f"seeds: {seeds}, each pretrained once, adapted with {len(choices)} methods; kernels compile first")
        with closing(_adaptations(task, choices, seeds, workers, shown)) as adaptations:
            for run in adaptations:
                runs.append(run)
                known = {run.choice for run in runs}
                yield [_result(choice, account, task, runs) for choice, account in held if choice in known]


def _adaptations(task: Task, choices: Sequence[Choice], seeds: int, workers: int, shown: Bar) -> Generator[Adaptation]:
    """Every seed's pretrained network adapted with every choice, in the order they are done."""
    built = [(choice, choice.build()) for choice in choices]
    with tempfile.TemporaryDirectory(prefix="minitl-") as folder:
        ticks = Path(folder) / "steps"
        ticks.touch()
        shown.follow(lambda: ticks.stat().st_size)
        known = []
        with closing(spread(pretrain, [(task, seed, ticks) for seed in range(seeds)], workers)) as pretrained:
            for source in pretrained:
                shown.advance(f"seed {source.seed}: pretrained")
                known.append(source)
        jobs = [(task, source, *method, ticks) for source in known for method in built]
        with closing(spread(adapt, jobs, workers)) as adapted:
            for run in adapted:
                shown.advance(f"seed {run.seed}: {run.choice}, accuracy {run.accuracy:.1%} in {run.seconds:.1f} s")
                yield run


def ledger(choice: Choice, task: Task | None = None) -> Ledger:
    """What one step of training on the target task holds, with Adam's state."""
    task = task or Task()
    slots = Adam(LEARNING_RATE).slots
    built = network(task, choice.build())
    return predict(built, batch=task.batch, resolution=task.size, optimizer_slots=slots, apply=task.apply)


def _result(choice: Choice, held: Ledger, task: Task, runs: Sequence[Adaptation]) -> Result:
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
        trained_parameters=network(task, choice.build()).trained_count,
        flops=held.totals.flops.total,
        seconds=sum(run.seconds for run in own) / len(own),
    )
