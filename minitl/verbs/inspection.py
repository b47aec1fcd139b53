"""One method's training step, as `minitl inspect` found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minitl.accounting import Ledger, Measured
from minitl.accounting.report import Key


@dataclass(frozen=True)
class Inspection:
    """What was inspected (`about`, as in the JSON), and what was found; `block` maps a row to its block."""

    about: dict[str, Any]
    block: Key
    ledger: Ledger
    measured: Measured | None = None

    @property
    def label(self) -> str:
        """The method, and how many blocks it tunes: `mobiletl (5 blocks)`."""
        count = self.about["blocks"]
        return str(self.about["method"]) + (f" ({count} block{'s' * (count > 1)})" if count else "")

    @property
    def reconciled(self) -> bool:
        """Whether what was measured, if anything, is what was predicted."""
        m = self.measured
        return m is None or m.held_bytes == m.traced_bytes == self.ledger.kept_bytes
