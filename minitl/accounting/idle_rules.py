"""Which of the backward rules asked for no layer uses: nothing goes backward there, or another rule prevails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from minitl.networks.model import Model
from minitl.records import Checkpoint, OpRecord, Record
from minitl.shadow import ShadowTape


def idle_rules(model: Model, rules: Mapping[str, str], *, batch: int, resolution: int) -> list[str]:
    """Those of `rules` (by role or activation, as a method has them) without effect on a step, as `what=rule`."""
    if not rules:
        return []
    tape = ShadowTape(fused=False)
    model(tape, tape.phantom((batch, resolution, resolution, model.input_channels), model.dtype))
    used = {(what, r.rule) for r in _ops(tape.records) if any(r.needs) for what in (r.role, r.name)}
    return [f"{what}={rule}" for what, rule in rules.items() if (what, rule) not in used]


def _ops(records: Sequence[Record]) -> Iterator[OpRecord]:
    """The records of ops, those within a checkpoint too."""
    for record in records:
        if isinstance(record, Checkpoint):
            yield from _ops(record.inner)
        elif isinstance(record, OpRecord):
            yield record
