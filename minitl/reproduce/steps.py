"""Run a step on shapes, and add it up as the paper does."""

from __future__ import annotations

from dataclasses import dataclass

from minitl.accounting import Ledger, ledger
from minitl.accounting.paper_flops import paper_flops
from minitl.accounting.predict import shadow_step
from minitl.networks import Model
from minitl.ops import Split
from minitl.records import Record
from minitl.shadow import ShadowTape

UNCOUNTED = ("dropout", "loss")  # roles for which the paper counts nothing


@dataclass(frozen=True)
class PaperStep:
    """A step as the paper counts it: without dropout and loss; `parameter_bytes` with frozen ones at 1 byte."""

    ledger: Ledger
    kept_bytes: int
    parameters: int
    parameter_bytes: int
    work: dict[str, Split]  # by role
    records: tuple[Record, ...]

    @property
    def flops(self) -> Split:
        """The work of all roles."""
        return sum(self.work.values(), Split())


def paper_step(model: Model, *, batch: int, resolution: int) -> PaperStep:
    """The figures of one step of `model`, a method already applied."""
    tape = ShadowTape()
    shadow_step(model, tape, batch, resolution, None, pixels=False)
    whole = ledger(tape)
    weights = [p for p in model.parameters() if not p.statistic]
    work: dict[str, Split] = {}
    for record in tape.records:
        if record.role not in UNCOUNTED:
            work[record.role] = work.get(record.role, Split()) + paper_flops(record)
    return PaperStep(
        ledger=whole,
        kept_bytes=sum(row.bytes for row in whole.rows if row.role not in UNCOUNTED),
        parameters=sum(p.value.size for p in weights),
        parameter_bytes=sum(p.nbytes if p.trained else p.value.size for p in weights),
        work=work,
        records=tuple(tape.records),
    )
