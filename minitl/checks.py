"""Checks of plain arguments: counts, numbers and flags, in whatever integer or float type they come.

Each returns the value as Python's own `int`, `float` or `bool`, so that nothing further down meets
a NumPy scalar, and raises ValueRangeError otherwise.
"""

from __future__ import annotations

import math
import operator
from numbers import Real

import numpy as np

from minitl.errors import ValueRangeError, brief


def as_count(value: object, least: int = 0) -> int | None:
    """The whole number `value` as an int, or None where it is none or below `least`.

    Integers of any type will do, NumPy's and arrays of no axes included. Booleans and floats are no
    counts, whole or not.
    """
    if isinstance(value, bool | np.bool_):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    return number if number >= least else None


def expect_count(name: str, value: object, *, least: int = 1, most: int | None = None, **where: str) -> int:
    """`value` as an int from `least` to `most`; `where` are the `op` and `layer` of the error."""
    number = as_count(value, least)
    if number is None or (most is not None and number > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueRangeError(expected=f"{name} {span}", got=brief(value), **where)
    return number


def as_number(value: object) -> float | None:
    """The finite real number `value` as a float, or None where it is none (a boolean is none)."""
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def expect_flag(name: str, value: object, **where: str) -> bool:
    """`value` as a bool."""
    if not isinstance(value, bool | np.bool_):
        raise ValueRangeError(expected=f"{name} to be True or False", got=brief(value), **where)
    return bool(value)
