"""Ledgers as people read them: by block, and one against another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minitl.accounting.ledger import WHY, Ledger, Row
from minitl.accounting.table import table
from minitl.networks.network import Model

Key = Callable[[Row], str]


def block_of(model: Model) -> Key:
    """A function from a row to the part of the model it belongs to: stem, block 1, ..., head, loss."""
    count = len(model.blocks)
    names = {0: "head", count + 1: "stem"} | {h: f"block {count + 1 - h}" for h in range(1, count + 1)}
    parts = {layer.path: names[layer.height] for layer in model.layers()}
    return lambda row: parts.get(row.layer, row.layer)


def by_layer(row: Row) -> str:
    """The layer itself."""
    return row.layer


def sums(rows: Iterable[Row], key: Key) -> dict[str, int]:
    """Bytes by key, in the order the keys first appear."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[key(row)] = totals.get(key(row), 0) + row.bytes
    return totals


def block_table(ledger: Ledger, key: Key) -> str:
    """Kept bytes of each part, split by what they are needed for."""
    needs = [need for need in WHY if any(need in row.needed_for for row in ledger.rows)]
    split = {need: sums((r for r in ledger.rows if r.needed_for[0] == need), key) for need in needs}
    body = []
    for name, total in sums(ledger.rows, key).items():
        share = f"{100 * total / ledger.kept_bytes:.1f}" if ledger.kept_bytes else "-"
        body.append((name, f"{total:,}", share, *(f"{split[need].get(name, 0):,}" for need in needs)))
    header = ("part", "bytes", "%", *(f"for {WHY[need]}s" for need in needs))
    note = "\n(a buffer that serves several gradients is listed under the first)"
    return table(header, body, right=range(1, len(header))) + note


def against_table(one: Ledger, other: Ledger, names: tuple[str, str], key: Key) -> str:
    """Kept bytes of two ledgers side by side, and the difference."""
    left, right = sums(one.rows, key), sums(other.rows, key)
    order = [*right, *(name for name in left if name not in right)]
    pairs = [(name, left.get(name, 0), right.get(name, 0)) for name in order]
    pairs.append(("all", one.kept_bytes, other.kept_bytes))
    body = [(name, f"{a:,}", f"{b:,}", f"{a - b:+,}", percent(a, b)) for name, a, b in pairs]
    return table(("kept bytes", *names, "difference", "%"), body, right=(1, 2, 3, 4))


def percent(new: int, old: int) -> str:
    """The change from old to new in percent, or `-` where there was nothing."""
    return f"{100 * (new - old) / old:+.2f}" if old else "-"
