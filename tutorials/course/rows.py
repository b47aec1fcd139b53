"""Comparing rows of a ledger: {"expand.x": bytes, ...}."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from course.attempt import NotYet

Rows = dict[str, int]
Likely = Mapping[str, Callable[[], Rows]]


def same_rows(got: Any, expected: Rows, likely: Likely | None = None, where: str = "") -> None:
    """Raise NotYet unless `got` has the names and bytes of `expected`; `where` says for what."""
    if not isinstance(got, dict):
        raise NotYet(f"It returns {type(got).__name__}, expected a dictionary: name to bytes.")
    if got == expected and all(isinstance(value, int) for value in got.values()):
        return
    for sentence, thunk in (likely or {}).items():
        if got == thunk():
            raise NotYet(f"{where}{sentence}")
    for name in sorted(expected.keys() - got.keys()):
        raise NotYet(f"{where}{name} is missing.")
    for name in sorted(got.keys() - expected.keys()):
        raise NotYet(f"{where}{name} is too much: nothing is kept under that name.")
    off = [name for name in expected if got[name] != expected[name]]
    if not off:
        raise NotYet(f"{where}bytes are whole numbers: use // and ints.")
    name = off[0]
    raise NotYet(
        f"{where}{name} is {_said(got[name])}, expected {expected[name]:,}; {len(off)} of {len(expected)} are off."
    )


def _said(count: Any) -> str:
    """Bytes as the expected ones are written, if it is a number at all."""
    return f"{count:,}" if isinstance(count, int | float) else repr(count)
