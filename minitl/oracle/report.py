"""What a check found: a line per tensor, a report per case."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Line:
    """The verdict on one tensor. `ratio` is error / bound at the worst element; 0 where both are 0.

    `note` says what else there is to know of a right or wrong tensor, such as the dtype it was judged as.
    """

    tensor: str
    ok: bool
    problem: str = ""
    cause: str = ""
    index: tuple[int, ...] = ()
    got: float = 0.0
    expected: float = 0.0
    error: float = 0.0
    bound: float = 0.0
    ratio: float = 0.0
    ulp: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        start = f"{'ok   ' if self.ok else 'WRONG'} {self.tensor}"
        note = f" ({self.note})" if self.note else ""
        if self.problem:
            return f"{start}: {self.problem}{note}" + (f" [likely: {self.cause}]" if self.cause else "")
        return f"{start}: error / bound {self.ratio:.3g}{note}"


@dataclass(frozen=True)
class Report:
    """The verdicts on all tensors of one case."""

    case: str
    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(line.ok for line in self.lines)

    @property
    def worst(self) -> float:
        """The largest error / bound of all tensors."""
        return max((line.ratio for line in self.lines), default=0.0)

    @property
    def notes(self) -> list[str]:
        """What the lines note, each once, with the tensors that it is noted of."""
        noted: dict[str, list[str]] = {}
        for line in self.lines:
            if line.note:
                noted.setdefault(line.note, []).append(line.tensor)
        return [f"{note} ({self._all_or(names)})" for note, names in noted.items()]

    def _all_or(self, names: list[str]) -> str:
        return f"all {len(names)}" if len(names) == len(self.lines) else ", ".join(names)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary; infinite ratios become null, for JSON has none."""
        lines = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(line).items()}
            for line in self.lines
        ]
        return {"case": self.case, "ok": self.ok, "tensors": lines}

    def __str__(self) -> str:
        wrong = [str(line) for line in self.lines if not line.ok]
        if not wrong:
            notes = "".join(f"; {note}" for note in self.notes)
            return f"{self.case}: ok, {len(self.lines)} tensors, largest error / bound {self.worst:.3g}{notes}"
        return "\n".join([f"{self.case}: {len(wrong)} of {len(self.lines)} tensors wrong", *(f"  {w}" for w in wrong)])


class Mismatch(AssertionError):  # noqa: N818 - it reads as what it is
    """Something computed is wrong; `report` says what."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report
