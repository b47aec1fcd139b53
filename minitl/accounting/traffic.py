"""The passes of a step's records, as devices see them: what each computes, and how many bytes it moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minitl.devices.work import FORWARD, GRAD_INPUT, GRAD_WEIGHT, RECOMPUTE, Work
from minitl.ops.op import EXACT
from minitl.records import Checkpoint, OpRecord, Record


def passes(records: Sequence[Record]) -> Iterator[Work]:
    """All passes of a step's records, layer by layer in the order they run forward."""
    for record in records:
        if isinstance(record, Checkpoint):
            yield from (work_of(inner, RECOMPUTE) for inner in op_records(record.inner))
            yield from passes(record.inner)
        elif isinstance(record, OpRecord):
            yield from _of_op(record)


def op_records(records: Sequence[Record]) -> Iterator[OpRecord]:
    """The records of ops, those within checkpoints too."""
    for record in records:
        if isinstance(record, Checkpoint):
            yield from op_records(record.inner)
        elif isinstance(record, OpRecord):
            yield record


def _of_op(record: OpRecord) -> Iterator[Work]:
    yield work_of(record, FORWARD)
    flows = record.op.activations
    if any(record.needs[:flows]):
        yield work_of(record, GRAD_INPUT)
    if any(record.needs[flows:]):
        yield work_of(record, GRAD_WEIGHT)


def work_of(record: OpRecord, part: str) -> Work:
    """One pass of a record."""
    has_weight = "weight" in record.op.inputs and record.cost.macs.forward > 0
    place = record.op.inputs.index("weight") if has_weight else -1
    counted = FORWARD if part == RECOMPUTE else part
    return Work(
        layer=record.layer,
        op=record.name if record.rule == EXACT else f"{record.name}:{record.rule}",
        part=part,
        x=record.shapes[0],
        weight=record.shapes[place] if has_weight else (),
        y=record.cost.output,
        stride=record.attrs.get("stride", 1),
        macs=getattr(record.cost.macs, counted),
        flops=getattr(record.cost.flops, counted),
        bytes=getattr(record.cost.moved, counted),
        trains_weight=has_weight and record.needs[place],
    )
