"""Time several steps against one another, so that what disturbs the machine disturbs them all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

K = TypeVar("K")
Burst = Callable[[int], list[float]]  # runs so many steps in a row; the seconds that each took

PAUSE = 0.02  # seconds; longer than an idle OpenMP thread spins, which would cost the next step a core
LENGTH = 0.05  # seconds of a burst


def interleave(bursts: Mapping[K, Burst], seconds: float) -> dict[K, list[float]]:
    """Seconds that each one's steps took, in rounds of all of them, at least one round and then until time is up."""
    counts = {key: max(1, round(LENGTH / max(burst(2)[-1], 1e-6))) for key, burst in bursts.items()}
    times: dict[K, list[float]] = {key: [] for key in bursts}
    end = time.perf_counter() + seconds
    while True:
        for key, burst in bursts.items():
            time.sleep(PAUSE)
            took = burst(counts[key])
            times[key] += took[1:] or took  # the data of the first have left the caches
        if time.perf_counter() >= end:
            return times


def burst_of(step: Callable[[], object]) -> Burst:
    """Bursts of this step, in this process."""
    return partial(run, step)


def run(step: Callable[[], object], count: int) -> list[float]:
    """Seconds that each of `count` calls takes."""
    return [once(step) for _ in range(count)]


def once(step: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
