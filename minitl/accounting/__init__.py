"""Accounting: what a step holds, predicted from shapes, read off a tape, and measured."""

from minitl.accounting.ledger import Ledger, Row, Totals, ledger
from minitl.accounting.predict import Measured, measure, predict

__all__ = ["Ledger", "Measured", "Row", "Totals", "ledger", "measure", "predict"]
