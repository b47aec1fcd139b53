"""Ledgers as one tidy table of comma-separated values: a line is one observation, and says what it is of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from minitl.accounting.ledger import Ledger
from minitl.accounting.report import Key, sums

Lines = Iterable[Mapping[str, Any]]


def buffers(about: Mapping[str, Any], ledger: Ledger, block: Key) -> Lines:
    """One line per kept buffer."""
    for row in ledger.rows:
        yield {**about, "block": block(row), **row.plain()}


def parts(about: Mapping[str, Any], ledger: Ledger, part: Key) -> Lines:
    """One line per part of the network."""
    for name, count in sums(ledger.rows, part).items():
        yield {**about, "block": name, "bytes": count}


def totals(about: Mapping[str, Any], ledger: Ledger) -> Lines:
    """One line: the totals, and the work of a step."""
    data = {name: value for name, value in asdict(ledger.totals).items() if name.endswith("_bytes")}
    yield {**about, **data, "macs": ledger.totals.macs.total, "flops": ledger.totals.flops.total}


def csv_text(lines: Lines) -> str:
    """The lines under a header, which is that of the first; None is left empty."""
    lines, out = list(lines), io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
