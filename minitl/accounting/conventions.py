"""How floating-point operations are counted: the conventions, by name."""

from __future__ import annotations

from collections.abc import Callable

from minitl.accounting.paper_flops import paper_flops
from minitl.errors import lookup
from minitl.ops import Split
from minitl.records import Record

STANDARD = "standard"


def standard_flops(record: Record) -> Split:
    """Every operation that is really done: 2 for a multiply-add, elementwise ones as `ops.Cost` counts them."""
    return record.cost.flops


CONVENTIONS: dict[str, Callable[[Record], Split]] = {STANDARD: standard_flops, "paper": paper_flops}


def counting(convention: str) -> Callable[[Record], Split]:
    """The function from a record to its FLOPs; raises UnknownNameError on another name."""
    return lookup("FLOPs convention", convention, CONVENTIONS)
