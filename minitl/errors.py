"""Errors that say where, what was expected, what came, and what to do about it.

Every error minitl raises on bad input is a `ValueError`, so callers may catch the built-in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Self, TypeVar

T = TypeVar("T")

LONGEST = 80  # characters of a value that an error shows


class MinitlError(ValueError):
    """Bad input. Its text reads `layer (op): expected ..., got ...; remedy`.

    `layer` is filled in by whoever knows it: an op called by itself has no layer, and a tape
    adds the path of the layer it was running (`at`).
    """

    def __init__(
        self, problem: str = "", *, op: str = "", layer: str = "", expected: str = "", got: str = "", remedy: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem, self.op, self.layer = problem, op, layer
        self.expected, self.got, self.remedy = expected, got, remedy

    def at(self, layer: str) -> Self:
        """The same error, naming the layer it happened in (the innermost one wins)."""
        self.layer = self.layer or layer
        return self

    def __str__(self) -> str:
        where = f"{self.layer} ({self.op})" if self.layer and self.op else self.layer or self.op
        what = self.problem or f"expected {self.expected}, got {self.got}"
        text = (f"{where}: " if where else "") + what + (f"; {self.remedy}" if self.remedy else "")
        return " ".join(text.splitlines())  # whatever was handed in, it is one line


class ShapeError(MinitlError):
    """An array of the wrong rank or shape."""


class DtypeError(MinitlError):
    """An array of the wrong dtype."""


class ValueRangeError(MinitlError):
    """A value that is not finite, or outside the range that makes sense."""


class NotFiniteError(ValueRangeError):
    """A number of a training step that became infinite or NaN: a smaller learning rate may help."""


class RuleError(MinitlError):
    """A backward rule the op does not have, or a gradient it cannot give."""


class UnknownNameError(MinitlError):
    """A network, method, layer role, parameter or attribute that does not exist."""


class DataError(MinitlError):
    """A file or folder that cannot be read as what it should be."""


class UsageError(MinitlError):
    """A call in an order or a place that cannot work."""


def unknown(kind: str, got: object, known: Iterable[object], **where: str) -> UnknownNameError:
    """The error for a name that is not one of `known`, listing those that are."""
    names = [str(name) for name in known]
    problem = f"unknown {kind} {brief(repr(got))}{did_you_mean(got, names)}"
    return UnknownNameError(problem, remedy=f"choose one of: {', '.join(names)}", **where)


def lookup(kind: str, name: object, table: Mapping[str, T], **where: str) -> T:
    """The entry of that name, which may be anything a caller hands in; raises UnknownNameError if there is none."""
    if not isinstance(name, str) or name not in table:
        raise unknown(kind, name, table, **where)
    return table[name]


def brief(value: object) -> str:
    """A value as an error shows it: on one line, and not all of a long one."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def did_you_mean(got: object, known: Iterable[str]) -> str:
    """` (did you mean 'mobiletl'?)`, or nothing where no name of `known` is close."""
    plain = {name.lower().replace("_", "-"): name for name in known}
    close = get_close_matches(str(got).lower().replace("_", "-"), plain, n=1, cutoff=0.7)
    return f" (did you mean {plain[close[0]]!r}?)" if close else ""
