"""A case: random numbers to try an attempt on, and comparisons that say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from course.attempt import NotYet

Array = Any
Likely = Mapping[str, Callable[[], Any]]
TOLERANCE = {"float64": 1e-9, "float32": 2e-4}  # of the largest element


class Case:
    """Random arrays of one dtype; the same seed gives the same ones."""

    def __init__(self, seed: Any, dtype: str) -> None:
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers."""
        return self.rng.standard_normal(shape).astype(self.dtype)

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Numbers between `low` and `high`."""
        return self.rng.uniform(low, high, shape).astype(self.dtype)

    def map_shape(self) -> tuple[int, int, int, int]:
        """Odd, unequal sizes (N, H, W, C): N and C above 1, H unlike W."""
        height, width = self.rng.permutation([3, 5, 7])[:2]
        return (
            int(self.rng.integers(2, 4)),
            int(height),
            int(width),
            int(self.rng.choice([5, 9, 11])),
        )

    def results(self, names: Sequence[str], got: Any) -> tuple[Any, ...]:
        """The results by name, as many as there should be."""
        if not isinstance(got, list | tuple) or len(got) != len(names):
            count = len(got) if isinstance(got, list | tuple) else 1
            what = "nothing" if got is None else "1 thing" if count == 1 else f"{count} things"
            raise NotYet(f"It returns {what}, expected {len(names)}: {', '.join(names)}.")
        return tuple(got)

    def need(self, condition: Any, sentence: str) -> None:
        """Raise NotYet with that sentence unless the condition holds."""
        if not condition:
            raise NotYet(sentence)

    def same(
        self,
        what: str,
        got: Any,
        expected: Any,
        likely: Likely | None = None,
        tolerance: float = 0,
        at: Mapping[str, Any] | None = None,
    ) -> None:
        """Raise NotYet unless `got` is `expected`: in shape, dtype and values, in this order.

        `likely` says for each usual mistake what it would give. The tolerance is relative to the largest
        element expected, by default that of the case's dtype; booleans and integers must be equal. Which
        element is wrong is said by the inputs in `at`, of the shape expected, else by its index.
        """
        expected = np.asarray(expected)
        tolerance = tolerance or TOLERANCE[self.dtype]
        if got is None:
            raise NotYet(f"{what} is None: does the function return it?")
        array = np.asarray(got)
        if array.shape == expected.shape and close(array, expected, tolerance):
            self._need_dtype(what, got, array, expected)
            return
        for sentence, thunk in (likely or {}).items():
            usual = np.asarray(thunk())
            if array.shape == usual.shape and close(array, usual, tolerance):
                raise NotYet(f"{what}: {sentence}")
        if array.shape != expected.shape:
            raise NotYet(f"{what} has shape {array.shape}, expected {expected.shape}.")
        self._need_dtype(what, got, array, expected)
        raise NotYet(_worst(what, array, expected, tolerance, at or {}))

    def _need_dtype(self, what: str, got: Any, array: Array, expected: Array) -> None:
        if isinstance(got, np.ndarray) and got.ndim and array.dtype != expected.dtype:
            raise NotYet(f"{what} is {array.dtype}, expected {expected.dtype}.")


def close(got: Array, expected: Array, tolerance: float) -> bool:
    """Whether all elements agree within `tolerance` times the largest one (exactly, for integers and booleans)."""
    if expected.dtype.kind != "f":
        return bool((got == expected).all())
    if got.dtype.kind not in "fiub" or not np.isfinite(got).all():
        return False
    size = np.abs(expected).max(initial=0)
    return bool((np.abs(got - expected) <= tolerance * (size or 1)).all())


def _worst(
    what: str, got: Array, expected: Array, tolerance: float, inputs: Mapping[str, Any]
) -> str:
    """The element that is furthest off (the first that is not finite, if any), and how many are."""
    if got.dtype.kind not in "fiub":
        return f"{what} holds {got.dtype}, expected {expected.dtype}."
    bound = tolerance * (np.abs(expected).max(initial=0) or 1) if expected.dtype.kind == "f" else 0
    with np.errstate(invalid="ignore"):
        off = np.asarray(abs(got.astype(float) - expected.astype(float)))  # of 0-d arrays, a scalar
    off[~np.isfinite(off)] = np.inf
    at = np.unravel_index(np.argmax(off), off.shape)
    where = f" at {tuple(map(int, at))}" if at else ""
    if inputs:
        where = " for " + ", ".join(
            f"{name} = {_said(array[at])}" for name, array in inputs.items()
        )
    count = f"; {int((off > bound).sum())} of {off.size} are off" if off.size > 1 else ""
    return f"{what} is {got[at]:.6g}{where}, expected {expected[at] + 0:.6g}{count}."


def _said(value: Any) -> str:
    """A number with six digits; a name or a boolean as it is."""
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
