"""Exercises: what one is, and how an attempt at it is judged.

The checks of tutorial NN stand in `checks_NN.py`, each a function of a `Case` (random numbers, and the
comparisons) and of the learner's functions, by the names they have in the tutorial. A check that is not
satisfied raises `NotYet` with a sentence for the learner; one that returns is satisfied.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from course import attempt
from course.attempt import Attempt, NotWritten, NotYet, Stopped
from course.case import Case

RUNS = ("float64", "float64", "float64", "float32")  # each with other random numbers and sizes


@dataclass(frozen=True)
class Exercise:
    """A check, the names of the functions it takes, and two hints, of which the second is nearly the code."""

    name: str
    functions: tuple[str, ...]
    hints: tuple[str, str]
    judge: Callable[..., None]


@dataclass(frozen=True)
class Verdict:
    """What a check has to say: which exercise, the state it is in, and why."""

    title: str
    state: str
    detail: str = ""

    @property
    def right(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == "right"

    def __str__(self) -> str:
        lines = (
            textwrap.wrap(self.detail, 96, break_on_hyphens=False)
            if "\n" not in self.detail
            else self.detail.splitlines()
        )
        return "\n   ".join([f"{self.title}: {self.state}.", *lines])


EXERCISES: dict[str, Exercise] = {}


def exercise(
    name: str, *, hints: tuple[str, str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a check under the exercise's name; its parameters after the first name the learner's functions."""

    def enter(judge: Callable[..., None]) -> Callable[..., None]:
        functions = tuple(inspect.signature(judge).parameters)[1:]
        EXERCISES[name] = Exercise(name, functions, hints, judge)
        return judge

    return enter


def find(name: str) -> Exercise | None:
    """The exercise of that name ("3b": the second of tutorial 3), or None."""
    digits = str(name).rstrip("abcdefghijklmnopqrstuvwxyz")
    if digits.isdecimal():
        module = f"course.checks_{int(digits):02}"
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    return EXERCISES.get(name)


def check(name: str, *functions: Any) -> None:
    """Print whether your functions are right, and if not, what is likely wrong. Never raises."""
    print(judge(name, *functions))


def hint(name: str, step: int = 1) -> None:
    """Print a hint; `step=2` says nearly everything."""
    found = find(name)
    if found is None:
        print(_unknown(name))
    elif step not in (1, 2):
        print(f'{name} has 2 hints; the last is hint("{name}", 2).')
    else:
        print(f"{name}, hint {step} of 2: {found.hints[step - 1]}")


def judge(name: str, *functions: Any, seed: int = 0) -> Verdict:
    """The verdict on an attempt; `seed` decides the random numbers."""
    found = find(name)
    if found is None:
        return Verdict(str(name), "unknown", _unknown(name))
    title = f"{name} {', '.join(found.functions)}"
    if len(functions) != len(found.functions) or not all(map(callable, functions)):
        return Verdict(
            title, "not yet right", f"This check takes the functions {', '.join(found.functions)}."
        )
    try:
        with np.errstate(all="ignore"):
            for number, dtype in enumerate(RUNS):
                found.judge(Case([seed, number], dtype), *map(Attempt, functions))
    except NotWritten:
        return Verdict(title, _left(found, functions))
    except Stopped as stop:
        return Verdict(title, stop.where, stop.error)
    except NotYet as problem:
        return Verdict(title, "not yet right", str(problem))
    except Exception as error:
        return Verdict(
            title,
            "not yet right",
            f"What it gives could not be compared ({type(error).__name__}: {error}).",
        )
    return Verdict(title, "right")


def _left(found: Exercise, functions: tuple[Any, ...]) -> str:
    """What is left to write: all, as at first, or some of several functions."""
    left = [name for name, f in zip(found.functions, functions, strict=True) if attempt.is_stub(f)]
    lines = "their `raise` lines" if len(left) > 1 else "its `raise` line"
    todo = f'Replace {lines}; hint("{found.name}") helps'
    if 0 < len(left) < len(functions):
        return f"{' and '.join(left)} {'is' if len(left) == 1 else 'are'} not written yet. {todo}"
    return f"not written yet, as it should be at first. {todo}"


def _unknown(name: str) -> str:
    known = ", ".join(sorted(EXERCISES)) or "1a, 1b, ..."
    return f"There is no exercise {name!r}. Some that there are: {known}."
