"""One method's training step, as `minitl inspect` found it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minitl.accounting import Ledger, Measured
from minitl.accounting.ledger import Row
from minitl.accounting.report import Key, by_layer, by_network
from minitl.accounting.timeline import Timeline


@dataclass(frozen=True)
class Inspection:
    """What was inspected (`about`, as in the JSON), and what was found; `block` maps a row to its block."""

    about: dict[str, Any]
    block: Key
    ledger: Ledger
    measured: Measured | None = None
    timeline: Timeline | None = None

    @property
    def label(self) -> str:
        """The method, and how many blocks it tunes: `mobiletl (5 blocks)`."""
        count = self.about["blocks"]
        return str(self.about["method"]) + (f" ({count} block{'s' * (count > 1)})" if count else "")

    @property
    def step(self) -> str:
        """Which step: `mobilenet_v2, batch 8, 224 px`."""
        about = self.about
        return f"{about['network']}, batch {about['batch']}, {about['resolution']} px"

    @property
    def title(self) -> str:
        """Which step, and by which method."""
        return f"{self.step}, {self.label}"

    @property
    def reconciled(self) -> bool:
        """Whether what was measured, if anything, is what was predicted."""
        m = self.measured
        return m is None or m.held_bytes == m.traced_bytes == self.ledger.kept_bytes


def key_of(found: Sequence[Inspection], by: str) -> Key:
    """What a row belongs to, in a table or plot by `layer`, `block` or `network` of all that was found.

    A method may add layers that the others have not, so that each knows the blocks of its own.
    """

    def block(row: Row) -> str:
        return next((part for one in found if (part := one.block(row)) != row.layer), row.layer)

    keys: dict[str, Key] = {"layer": by_layer, "block": block, "network": by_network}
    return keys[by]
