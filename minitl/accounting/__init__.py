"""Accounting: what a step holds, predicted from shapes, read off a tape, and measured."""

from minitl.accounting.arena import Arena
from minitl.accounting.ledger import Ledger, Row, Totals, ledger
from minitl.accounting.predict import Measured, measure, predict
from minitl.accounting.sparse_budget import sparse_update_within
from minitl.accounting.timeline import Timeline, arena, timeline

__all__ = [
    "Arena", "Ledger", "Measured", "Row", "Timeline", "Totals", "arena", "ledger", "measure", "predict",
    "sparse_update_within", "timeline",
]  # fmt: skip
