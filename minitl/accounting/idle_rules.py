"""Which of the backward rules asked for no layer uses: nothing goes backward there, or another rule prevails."""

from __future__ import annotations

from collections.abc import Mapping

from minitl.accounting.traffic import op_records
from minitl.networks.model import Model
from minitl.shadow import ShadowTape


def idle_rules(model: Model, rules: Mapping[str, str], *, batch: int, resolution: int) -> list[str]:
    """Those of `rules` (by role or activation, as a method has them) without effect on a step, as `what=rule`."""
    if not rules:
        return []
    tape = ShadowTape(fused=False)
    model(tape, tape.phantom((batch, resolution, resolution, model.input_channels), model.dtype))
    used = {(what, r.rule) for r in op_records(tape.records) if any(r.needs) for what in (r.role, r.name)}
    return [f"{what}={rule}" for what, rule in rules.items() if (what, rule) not in used]
