"""Schedules: the factor on the learning rate, in [0, 1], at step 0, 1, ... of `steps`."""

from __future__ import annotations

import math
from collections.abc import Callable

from minitl.checks import as_count
from minitl.errors import ValueRangeError, brief

Schedule = Callable[[int, int], float]

MOST = 2**53  # steps: all whole numbers up to it are floats


def constant(step: int, steps: int, warmup: int = 0) -> float:
    """1, from the first step or after `warmup` steps that rise evenly, (step + 1) / (warmup + 1)."""
    return min(1.0, (step + 1) / (warmup + 1))


def cosine(step: int, steps: int, warmup: int = 0) -> float:
    """Half a cosine wave from 1 down to 0, reached at `steps` (Loshchilov & Hutter 2017, arXiv:1608.03983).

    (1 + cos(pi (step - warmup) / (steps - warmup))) / 2; before it, the first `warmup` steps
    rise as those of `constant`. Raises ValueRangeError unless 0 <= step <= steps and 0 <= warmup < steps.
    """
    if None in (as_count(step), as_count(steps), as_count(warmup)) or not (step <= steps <= MOST and warmup < steps):
        got = f"step {brief(step)} of {brief(steps)}, warmup {brief(warmup)}"
        raise ValueRangeError(op="cosine", expected="0 <= step <= steps and 0 <= warmup < steps", got=got)
    if step < warmup:
        return constant(step, steps, warmup)
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
