"""Ledgers as people read them: by block, and one against another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from minitl.accounting.ledger import WHY, Ledger, Row, totals_lines
from minitl.accounting.table import Table, table
from minitl.networks.model import Model


class Placed(Protocol):
    """What is of a layer."""

    @property
    def layer(self) -> str:
        """Its path."""


Key = Callable[[Row], str]


def block_of(model: Model) -> Callable[[Placed], str]:
    """A function from a row to the part of the model it belongs to: stem, block 1, ..., head, loss."""
    count = len(model.blocks)
    names = {0: "head", count + 1: "stem"} | {h: f"block {count + 1 - h}" for h in range(1, count + 1)}
    parts = {layer.path: names[layer.height] for layer in model.layers()}
    return lambda row: parts.get(row.layer, row.layer)


def by_layer(row: Row) -> str:
    """The layer itself."""
    return row.layer


def by_network(row: Row) -> str:
    """Everything together."""
    return "all"


def sums(rows: Iterable[Row], key: Key) -> dict[str, int]:
    """Bytes by key, in the order the keys first appear."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[key(row)] = totals.get(key(row), 0) + row.bytes
    return totals


def block_table(ledger: Ledger, key: Key) -> Table:
    """Kept bytes of each part, split by the gradient they are needed for (the first, of several)."""
    needs = [need for need in WHY if any(need in row.needed_for for row in ledger.rows)]
    split = {need: sums((r for r in ledger.rows if r.needed_for[0] == need), key) for need in needs}
    body = []
    for name, total in sums(ledger.rows, key).items():
        share = f"{100 * total / ledger.kept_bytes:.1f}" if ledger.kept_bytes else "-"
        body.append((name, f"{total:,}", share, *(f"{split[need].get(name, 0):,}" for need in needs)))
    header = ("part", "bytes", "%", *(WHY[need] for need in needs))
    return table(header, body, right=range(1, len(header)))


def against_table(one: Ledger, other: Ledger, names: tuple[str, str], key: Key) -> Table:
    """Kept bytes of two ledgers side by side, and the difference."""
    left, right = sums(one.rows, key), sums(other.rows, key)
    order = [*right, *(name for name in left if name not in right)]
    pairs = [(name, left.get(name, 0), right.get(name, 0)) for name in order]
    if order != ["all"]:
        pairs.append(("all", one.kept_bytes, other.kept_bytes))
    body = [(name, f"{a:,}", f"{b:,}", f"{a - b:+,}", percent(a, b)) for name, a, b in pairs]
    return table(("kept bytes", *names, "difference", "%"), body, right=(1, 2, 3, 4))


def methods_table(ledgers: Mapping[str, Ledger], key: Key) -> Table:
    """Kept bytes of several ledgers side by side."""
    parts = {name: sums(ledger.rows, key) for name, ledger in ledgers.items()}
    order = dict.fromkeys(part for name in reversed(parts) for part in parts[name])
    body = [(part, *(f"{own.get(part, 0):,}" for own in parts.values())) for part in order]
    return table(("kept bytes", *ledgers), body, right=range(1, 1 + len(ledgers)))


def totals_beside(ledgers: Mapping[str, Ledger]) -> Table:
    """The totals of several ledgers side by side."""
    totals = [ledger.totals for ledger in ledgers.values()]
    lines = [dict(totals_lines(t)) for t in totals]
    names = max(lines, key=len)  # the state of rules is told where there is some
    body = [(name, *(f"{line.get(name, 0):,}" for line in lines)) for name in names]
    body += [("MACs", *(f"{t.macs.total:,}" for t in totals)), ("FLOPs", *(f"{t.flops.total:,}" for t in totals))]
    return table(("bytes and work", *ledgers), body, right=range(1, 1 + len(ledgers)))


def percent(new: int, old: int) -> str:
    """The change from old to new in percent, or `-` where there was nothing."""
    return f"{100 * (new - old) / old:+.2f}" if old else "-"
