"""PyTorch's steps, in processes of their own: one for each way its threads may wait for one another.

By default an OpenMP thread that waits spins for some milliseconds. That is fast on an idle machine. Where
something else wants the cores it is ruinous (10 to 50 times slower steps were seen on two cores), and threads
that sleep instead are fast. PyTorch gets the benefit of whichever is faster. A process of its own also keeps
its spinning threads from minitl's cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context

from minitl.bench import rivals, timing
from minitl.bench.cases import Case, Tuning
from minitl.kernels.heap import keep_freed_memory
from minitl.training.workers import deaf

WAITS = {"spinning": "", "sleeping": "passive"}  # OMP_WAIT_POLICY

_steps: dict[tuple[Tuning, str], Callable[[], object]] = {}  # in the worker


class Worker:
    """A process that runs one case's steps when told to."""

    def __init__(self, case: Case, threads: int, wait: str) -> None:
        self.case, self.threads = case, threads
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), start, (WAITS[wait],))

    def burst(self, tuning: Tuning, variant: str) -> timing.Burst:
        """Bursts of this step, in the worker."""
        return partial(self._run, tuning, variant)

    def _run(self, tuning: Tuning, variant: str, count: int) -> list[float]:
        with deaf():
            ran = self.pool.submit(_burst, self.case, tuning, variant, self.threads, count)
        return ran.result()

    def close(self) -> None:
        """End the process."""
        self.pool.shutdown()


@contextmanager
def ending_children() -> Iterator[None]:
    """Within it an interruption ends this process's processes, or closing them would wait for what they are at."""
    try:
        yield
    except KeyboardInterrupt:
        for child in active_children():
            child.kill()
        raise


def start(policy: str) -> None:
    """Set how threads wait, before PyTorch is imported (the empty policy is OpenMP's own).

    Freed memory is kept, as on minitl's side.
    """
    keep_freed_memory()
    if policy:
        os.environ["OMP_WAIT_POLICY"] = policy


def _burst(case: Case, tuning: Tuning, variant: str, threads: int, count: int) -> list[float]:
    if (tuning, variant) not in _steps:
        _steps[tuning, variant] = rivals.build(case, tuning, variant, threads)
    return timing.run(_steps[tuning, variant], count)
