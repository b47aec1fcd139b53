"""The ledger: what a training step holds for its backward, buffer by buffer, and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from minitl.accounting.conventions import STANDARD, counting
from minitl.accounting.table import Table, mb, table
from minitl.arrays import Shape
from minitl.checks import expect_count
from minitl.errors import UsageError, brief
from minitl.ops import Split
from minitl.ops.op import EXACT
from minitl.parameters import Parameter
from minitl.records import Holding, Record
from minitl.tape import Tape

# What a buffer is needed for: the gradient of these, or to compute something again.
WHY = {
    "grad_weight": "weight",
    "grad_bias": "bias",
    "grad_scale": "scale",
    "grad_input": "input",
    "recompute": "(recompute)",
}


@dataclass(frozen=True)
class Row:
    """One kept buffer.

    `bytes` is what it adds: memory that an earlier row already counts adds 0, and each row names
    the layers it shares with. `shape` and `bits` are those of the values it stands for.
    """

    layer: str
    op: str
    role: str
    rule: str
    tensor: str
    needed_for: tuple[str, ...]
    shape: Shape
    dtype: str
    bits: int
    bytes: int
    shared_with: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As a dictionary of texts and numbers: lists are joined by `;` and shapes by `x`."""
        lists = {name: ";".join(getattr(self, name)) for name in ("needed_for", "shared_with")}
        return {**vars(self), "shape": shape_text(self.shape), **lists}


@dataclass(frozen=True)
class Totals:
    """Bytes and work of one training step. All bytes are exact integers.

    `state_bytes` is what backward rules carry from step to step, `total_bytes` the sum of the seven
    entries before it. `peak_bytes` is the most alive at any
    moment of the step (parameters, statistics, optimizer state, images, labels, kept buffers,
    activations in flight, gradients, workspace); None where only the forward pass is known.
    `flops` are counted by the convention named (`accounting.conventions`).
    """

    kept_bytes: int
    trained_parameter_bytes: int
    frozen_parameter_bytes: int
    buffer_bytes: int
    state_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    total_bytes: int
    peak_bytes: int | None
    macs: Split
    flops: Split
    convention: str

    @property
    def resident_bytes(self) -> int:
        """What is held between steps: parameters, statistics, the state of rules and of the optimizer."""
        parameters = self.trained_parameter_bytes + self.frozen_parameter_bytes
        return parameters + self.buffer_bytes + self.state_bytes + self.optimizer_bytes

    def to_json(self) -> dict[str, Any]:
        """As a dictionary; `macs` and `flops` name their convention."""
        data = asdict(self)
        for work in ("macs", "flops"):
            data[work]["convention"] = data["convention"]
        del data["convention"]
        return data


@dataclass(frozen=True)
class Ledger:
    """The rows of a step and their totals; `str()` of it is a table."""

    rows: tuple[Row, ...]
    totals: Totals

    @property
    def kept_bytes(self) -> int:
        """Bytes kept for backward."""
        return self.totals.kept_bytes

    def to_json(self) -> dict[str, Any]:
        """`{"rows": [...], "totals": {...}}`."""
        return {"rows": [asdict(row) for row in self.rows], "totals": self.totals.to_json()}

    def to_csv(self) -> str:
        """The rows as comma-separated values, lists joined by `;` and shapes by `x`."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.plain() for row in self.rows)
        return out.getvalue()

    def __repr__(self) -> str:
        return f"<Ledger of {len(self.rows)} rows, {self.kept_bytes:,} bytes kept for backward; print it for its table>"

    def __str__(self) -> str:
        return "\n\n".join([rows_table(self.rows), *totals_tables(self.totals)])


def ledger(tape: Tape, *, optimizer_slots: int = 0, apply: bool = False, convention: str = STANDARD) -> Ledger:
    """What `tape` holds, or held before it was walked back.

    `optimizer_slots` is how many numbers the optimizer keeps for each trained parameter (SGD
    with momentum 1, Adam 2); with `apply` gradients are applied as they come, and the largest
    counts; `convention` how FLOPs are counted.
    """
    if not isinstance(tape, Tape):
        raise UsageError(op="ledger", expected="a Tape", got=brief(repr(tape)))
    optimizer_slots = expect_count("optimizer_slots", optimizer_slots, least=0, op="ledger")
    rows = tuple(_rows(tape.holdings()))
    kept = sum(row.bytes for row in rows)
    return Ledger(rows, _totals(tape.records, tape.parameters, kept, optimizer_slots, apply, convention))


def rows_table(rows: Sequence[Row]) -> Table:
    """The rows as a table that says what is kept, why, and how many bytes it adds.

    The role is left out where it says no more than the layer's name, and so is sharing where there is none.
    """
    kept = sum(row.bytes for row in rows)
    columns: dict[str, list[object]] = {
        "layer": [row.layer for row in rows],
        "role": [row.role for row in rows],
        "op:rule": [row.op if row.rule == EXACT else f"{row.op}:{row.rule}" for row in rows],
        "keeps": [row.tensor for row in rows],
        "gradient of": ["+".join(WHY[need] for need in row.needed_for) for row in rows],
        "shape": [shape_text(row.shape) for row in rows],
        "bits": [row.bits for row in rows],
        "bytes": [f"{row.bytes:,}" for row in rows],
        "%": [f"{100 * row.bytes / kept:.1f}" if kept else "-" for row in rows],
        "shared with": [",".join(row.shared_with) for row in rows],
    }
    if all(row.role == row.layer.replace(".", "_") for row in rows):
        del columns["role"]
    if not any(columns["shared with"]):
        del columns["shared with"]
    right = [list(columns).index(name) for name in ("bits", "bytes", "%")]
    body = list(zip(*columns.values(), strict=True))
    return table(list(columns), body, right=right, optional=("role", "bits", "%", "shape", "shared with"))


def totals_tables(totals: Totals) -> tuple[Table, Table]:
    """The bytes, a line each, and the work."""
    body = [(name, f"{count:,}", mb(count)) for name, count in totals_lines(totals)]
    work = [
        (name, *(f"{count:,}" for count in (split.total, split.forward, split.grad_input, split.grad_weight)))
        for name, split in (("MACs", totals.macs), (f"FLOPs ({totals.convention})", totals.flops))
    ]
    parts = ("per step", "all", "forward", "input grad.", "weight grad.")
    return table(("", "bytes", ""), body, right=(1, 2)), table(parts, work, right=range(1, 5))


def totals_lines(totals: Totals) -> list[tuple[str, int]]:
    """The bytes by what people call them."""
    lines = [
        ("kept for backward", totals.kept_bytes),
        ("trained parameters", totals.trained_parameter_bytes),
        ("frozen parameters", totals.frozen_parameter_bytes),
        ("norm statistics", totals.buffer_bytes),
        *([("state of backward rules", totals.state_bytes)] if totals.state_bytes else []),
        ("gradients", totals.gradient_bytes),
        ("optimizer state", totals.optimizer_bytes),
        ("total of these", totals.total_bytes),
    ]
    if totals.peak_bytes is not None:
        lines.append(("peak of a step", totals.peak_bytes))
    return lines


def shape_text(shape: Shape) -> str:
    """`8x7x7x96`."""
    return "x".join(map(str, shape))


def _rows(holdings: Iterable[Holding]) -> list[Row]:
    holdings = list(holdings)
    layers: dict[int, list[str]] = {}
    for h in holdings:
        layers.setdefault(h.block, []).append(h.record.layer)
    counted: set[int] = set()
    rows = []
    for h in holdings:
        others = tuple(dict.fromkeys(layer for layer in layers[h.block] if layer != h.record.layer))
        adds = 0 if h.block in counted else h.kept.nbytes
        counted.add(h.block)
        r, k = h.record, h.kept
        rows.append(
            Row(r.layer, r.name, r.role, r.rule, k.tensor, k.needed_for, k.shape, k.dtype, k.bits, adds, others)
        )
    return rows


def _totals(
    records: Sequence[Record], parameters: Sequence[Parameter], kept: int, slots: int, apply: bool, convention: str
) -> Totals:
    trained = sum(p.nbytes for p in parameters if p.trained)
    statistics = sum(p.nbytes for p in parameters if p.statistic)
    state = sum(p.nbytes for p in parameters if p.state)
    frozen = sum(p.nbytes for p in parameters) - trained - statistics - state
    largest = max((p.nbytes for p in parameters if p.trained), default=0)
    gradients = largest if apply else trained
    count = counting(convention)
    return Totals(
        kept_bytes=kept,
        trained_parameter_bytes=trained,
        frozen_parameter_bytes=frozen,
        buffer_bytes=statistics,
        state_bytes=state,
        gradient_bytes=gradients,
        optimizer_bytes=slots * trained,
        total_bytes=kept + trained + gradients + frozen + statistics + state + slots * trained,
        peak_bytes=None,
        macs=sum((record.cost.macs for record in records), Split()),
        flops=sum((count(record) for record in records), Split()),
        convention=convention,
    )
