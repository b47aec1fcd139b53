"""A device: what is published about it, figure by figure, each with its source and its scope.

A device is a TOML file. `model` names how its figures turn into time (`devices.models`):

    name  = "my-board"                 # required
    title = "My Board, revision B"     # required
    model = "roofline"                 # roofline | ef-train | bit-serial-array | weight-stationary-array | capacity
    note  = "What is not known about it, in plain words."

    [flops_per_s]                      # any of FIGURES, each a table with these four keys
    value  = 48e9
    kind   = "derived"                 # measured | derived | simulated | advertised
    source = "where the number can be read"
    scope  = "what it holds for"

A figure that is missing is unknown: nothing is ever assumed in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitl.errors import ValueRangeError, unknown
from minitl.files import read_toml

FOLDER = Path(__file__).parent
FIGURES = {
    "flops_per_s": "float32 operations per second",
    "bytes_per_s": "bytes moved to and from main memory per second",
    "watts": "power of the whole board under training load",
    "memory_bytes": "memory that a training step may use",
    "row_width": "operand pairs that one array row takes at once",
    "wavelengths": "input vectors that the array takes at once",
}
KINDS = ("measured", "derived", "simulated", "advertised")
MODELS = ("roofline", "ef-train", "bit-serial-array", "weight-stationary-array", "capacity")


@dataclass(frozen=True)
class Figure:
    """A number above 0, how it was obtained (one of KINDS), where it stands and what it holds for."""

    value: float
    kind: str
    source: str
    scope: str


@dataclass(frozen=True)
class Device:
    """What is published about a device; `model` says how its figures turn into time."""

    name: str
    title: str
    model: str
    note: str
    figures: Mapping[str, Figure]

    def value(self, figure: str) -> float | None:
        """The number of that name, or None where none is published."""
        return self.figures[figure].value if figure in self.figures else None


def names() -> list[str]:
    """The devices that come with minitl."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def get(name: str) -> Device:
    """The device of that name, or the one that a file ending in `.toml` describes.

    Raises UnknownNameError on an unknown name or key, DataError on an unreadable file, ValueRangeError on a value.
    """
    if name.endswith(".toml"):
        return _read(Path(name))
    if name not in names():
        raise unknown("device", name, (*names(), "FILE.toml"))
    return _read(FOLDER / f"{name}.toml")


def _read(path: Path) -> Device:
    data = read_toml(path, "TOML file of a device")
    texts = {key: _text(path, data, key) for key in ("name", "title", "model")}
    if texts["model"] not in MODELS:
        raise unknown("model of a device", texts["model"], MODELS, layer=str(path))
    figures = {key: value for key, value in data.items() if key not in (*texts, "note")}
    for key in figures:
        if key not in FIGURES:
            raise unknown("figure of a device", key, ("name", "title", "model", "note", *FIGURES), layer=str(path))
    note = _text(path, data, "note") if "note" in data else ""
    return Device(**texts, note=note, figures={key: _figure(path, key, value) for key, value in figures.items()})


def _figure(path: Path, name: str, table: Any) -> Figure:
    if not isinstance(table, dict) or set(table) != {"value", "kind", "source", "scope"}:
        keys = sorted(table) if isinstance(table, dict) else repr(table)
        raise ValueRangeError(layer=str(path), expected=f"[{name}] with value, kind, source and scope", got=f"{keys}")
    value = table["value"]
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise ValueRangeError(layer=str(path), expected=f"{name}.value to be a number above 0", got=repr(value))
    if table["kind"] not in KINDS:
        raise unknown(f"kind of {name}", table["kind"], KINDS, layer=str(path))
    return Figure(value, table["kind"], _text(path, table, "source"), _text(path, table, "scope"))


def _text(path: Path, table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueRangeError(layer=str(path), expected=f"{key} to be a text", got=repr(value))
    return " ".join(value.split())
