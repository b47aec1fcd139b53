"""An attempt: a learner's function, watched while it runs."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from types import CodeType, TracebackType
from typing import Any

import numpy as np


class NotWritten(Exception):  # noqa: N818 (it is no error)
    """The stub as it stands in the tutorial."""


class NotYet(Exception):  # noqa: N818
    """What is not right, in a sentence for the learner."""


class Stopped(Exception):  # noqa: N818
    """The attempt raised an exception: where, in its own lines, and which."""

    def __init__(self, where: str, error: str) -> None:
        super().__init__(where)
        self.where, self.error = where, error


class Attempt:
    """The learner's function; calling it says whether it stopped or changed what it was given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        """Call it; raises NotWritten, Stopped, or NotYet where an input array was changed."""
        before = [(array, array.copy()) for array in _arrays(arguments)]
        try:
            result = self.function(*arguments)
        except NotImplementedError:
            raise NotWritten from None
        except (Exception, SystemExit) as error:
            raise Stopped(*_where(self.function, error)) from None
        for array, was in before:
            if not np.array_equal(was, array, equal_nan=was.dtype.kind == "f"):
                raise NotYet(
                    f"An input of shape {was.shape} was changed: its owner still needs it. "
                    "Make a new array instead of writing into it (`a = a + b`, not `a += b`)."
                )
        return result


def is_stub(function: Callable[..., Any]) -> bool:
    """Whether the function still has its `raise NotImplementedError`."""
    return "NotImplementedError" in getattr(getattr(function, "__code__", None), "co_names", ())


def _arrays(values: Any) -> Iterator[Any]:
    """All arrays in nested lists, tuples and dictionaries, in order."""
    if isinstance(values, np.ndarray):
        yield values
    elif isinstance(values, dict):
        yield from _arrays(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _arrays(value)


def _where(function: Callable[..., Any], error: BaseException) -> tuple[str, str]:
    """The state "stopped in f, line ..." and the error, both in the learner's terms."""
    said = f"{type(error).__name__}: {error}".strip().rstrip(":")
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [
        (code, line) for code, line in _frames(error.__traceback__) if code.co_filename == file
    ]
    named = [(code, line) for code, line in frames if not code.co_name.startswith("<")] or frames
    if not named:
        return "stopped before its first line", said
    code, line = named[0 if isinstance(error, RecursionError) else -1]
    text = linecache.getline(code.co_filename, line).strip()
    where = f"{code.co_name}, line {line - code.co_firstlineno}"
    return f"stopped in {where}" + (f": `{text}`" if text else ""), said


def _frames(trace: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    while trace is not None:
        yield trace.tb_frame.f_code, trace.tb_lineno
        trace = trace.tb_next
