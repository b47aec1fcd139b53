"""What loading weights did: told, and as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 4  # names of each kind in the text


@dataclass(frozen=True)
class LoadReport:
    """What was done with the arrays of a file.

    `loaded`, `replaced` and `missing` are names of the network: taken from the file; left as
    initialised because a classifier of its own was asked for; not in the file, and left as they
    were. `unexpected` are names of the file that the network has no place for. `eps`, `momentum`
    and `padding` are those the network now follows, and `conventions` says whose they are.
    """

    file: str
    source: str
    loaded: tuple[str, ...]
    replaced: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    eps: float
    momentum: float
    padding: str
    conventions: str

    def to_json(self) -> dict[str, Any]:
        """The fields, names as lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.file} ({self.source}): {len(self.loaded)} arrays loaded"
        for title in ("replaced", "missing", "unexpected"):
            names = getattr(self, title)
            if names:
                rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                yield f"{title}: {', '.join(names[:SHOWN])}{rest}"
        mirrored = " (images and kernels are mirrored)" if self.padding == "same" else ""
        yield f"norms: eps {self.eps:g}, momentum {self.momentum:g}; padding: {self.padding}{mirrored}"
        yield f"conventions: {self.conventions}"
