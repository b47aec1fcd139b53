"""Time several steps against one another, so that what disturbs the machine disturbs them all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")

PAUSE = 0.02  # seconds; longer than an idle OpenMP thread spins, which would cost the next step a core
BURST = 0.05  # seconds


def interleave(steps: Mapping[K, Callable[[], object]], seconds: float) -> dict[K, list[float]]:
    """Seconds that each step took, in rounds of all of them, at least one round and then until time is up."""
    counts = {key: max(1, round(BURST / max(_warm(step), 1e-6))) for key, step in steps.items()}
    times: dict[K, list[float]] = {key: [] for key in steps}
    end = time.perf_counter() + seconds
    while True:
        for key, step in steps.items():
            time.sleep(PAUSE)
            times[key] += _burst(step, counts[key])
        if time.perf_counter() >= end:
            return times


def once(step: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _warm(step: Callable[[], object]) -> float:
    """Seconds of a step that is not the first."""
    step()
    return once(step)


def _burst(step: Callable[[], object], count: int) -> list[float]:
    """A few steps in a row; the first, whose data have left the caches, is left out where there are several."""
    times = [once(step) for _ in range(count)]
    return times[1:] or times
