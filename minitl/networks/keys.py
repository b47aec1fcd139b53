"""The keys of a table: what a key may hold, as fields of the dataclasses in schema.py; and how a section is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

from minitl.checks import as_count, as_number
from minitl.errors import MinitlError, UnknownNameError, ValueRangeError, unknown
from minitl.networks.inexpressible import REASONS

T = TypeVar("T")
Check = Callable[[str, str, Any], Any]  # (where, key, value) -> the value as the network takes it


def read(kind: type[T], data: Any, where: str, besides: Collection[str] = (), otherwise: str = "") -> T:
    """An instance of the dataclass from a mapping; raises where a key is unknown or missing, or a value is wrong.

    `besides` are other keys that may stand there, and that were read before; `otherwise` says what helps as well where
    a key is missing.
    """
    checks: dict[str, Check] = {f.name: f.metadata["check"] for f in fields(kind)}  # type: ignore[arg-type]
    given = mapping(where, "", data)
    expect_known(given, (*checks, *besides), where)
    values = {key: checks[key](where, key, value) for key, value in given.items()}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.default is MISSING and f.name not in values:
            raise UnknownNameError(f"key {f.name!r} is missing", layer=where, remedy=f"give {f.name}{otherwise}")
    return kind(**values)


def expect_known(keys: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise where one of the keys is not known."""
    for key in keys:
        if key not in known:
            raise inexpressible(where, str(key)) or unknown("key", key, known, layer=where)


def whole(least: int, most: int, default: Any = MISSING, *, odd: bool = False) -> Any:
    """A whole number from `least` to `most`."""
    expected = f"{'an odd' if odd else 'a whole'} number from {least} to {most}"

    def good(value: Any) -> bool:
        number = as_count(value, least)
        return number is not None and number <= most and bool(number % 2 or not odd)

    return _key(good, expected, default, int)


def number(good: Callable[[float], bool], expected: str, default: Any = MISSING) -> Any:
    """A real number, for which `good` holds."""

    def right(value: Any) -> bool:
        real = as_number(value)
        return real is not None and good(real)

    return _key(right, expected, default, float)


def choice(known: Collection[str], default: Any = MISSING) -> Any:
    """One of the names."""

    def check(where: str, key: str, value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            raise inexpressible(where, str(value)) or unknown(key, value, known, layer=where)
        return value

    return field(default=default, metadata={"check": check})


def flag(default: bool) -> Any:
    """True or false."""
    return _key(lambda value: isinstance(value, bool), "true or false", default, bool)


def text(default: str) -> Any:
    """A line of words."""
    return _key(lambda v: isinstance(v, str) and len(v) <= 200, "a text of at most 200 characters", default, str)


def anything() -> Any:
    """What is checked elsewhere."""
    return field(metadata={"check": lambda where, key, value: value})


def section(kind: type[Any], default: Any = MISSING) -> Any:
    """A table within the table."""
    return field(
        default=default, metadata={"check": lambda where, key, value: read(kind, value, f"{where} [{key}]".strip())}
    )


def mapping(where: str, key: str, value: Any) -> dict[str, Any]:
    """The value as a dict, if it is a table."""
    if not isinstance(value, Mapping):
        raise wrong(where, f"{key} a table of keys and values".strip(), value)
    return dict(value)


def wrong(where: str, expected: str, got: object) -> ValueRangeError:
    """The error for a value that a key cannot hold."""
    return ValueRangeError(layer=where, expected=expected, got=repr(got)[:80])


def inexpressible(where: str, word: str) -> MinitlError | None:
    """The error that says why a network with `word` is not one minitl can build, where the reason is known."""
    if word.lower() not in REASONS:
        return None
    return UnknownNameError(f"{word!r} cannot be expressed", layer=where, remedy=REASONS[word.lower()])


def _key(good: Callable[[Any], bool], expected: str, default: Any, kind: Callable[[Any], Any]) -> Any:
    def check(where: str, key: str, value: Any) -> Any:
        if not good(value):
            got = repr(value) if isinstance(value, str) else str(value)
            raise ValueRangeError(layer=where, expected=f"{key} {expected}", got=got[:80])
        return kind(value)

    return field(default=default, metadata={"check": check})
