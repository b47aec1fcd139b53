"""Bytes that each pass of a layer moves, from shapes: every array that enters or leaves it, once.

    forward       inputs and parameters read; the output and each kept buffer of its own written
    grad_input    the output's gradient, parameters and the buffers kept for it read; input gradients written
    grad_weight   the output's gradient and the buffers kept for it read; parameter gradients written
    recompute     as forward, once more

The least that must cross between an op and memory: a cache that is too small moves more, a fused
run of several ops less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minitl.arrays import nbytes
from minitl.devices.work import FORWARD, GRAD_INPUT, GRAD_WEIGHT, RECOMPUTE, Work
from minitl.records import Checkpoint, OpRecord, Record

OF_PARAMETERS = ("grad_weight", "grad_bias", "grad_scale")


def passes(records: Sequence[Record]) -> Iterator[Work]:
    """All passes of a step's records, layer by layer in the order they run forward."""
    for record in records:
        if isinstance(record, Checkpoint):
            yield from _checkpointed(record)
        elif isinstance(record, OpRecord):
            yield from _of_op(record)


def _checkpointed(record: Checkpoint) -> Iterator[Work]:
    for inner in record.inner:
        if isinstance(inner, OpRecord):
            yield work_of(inner, RECOMPUTE)
    yield from passes(record.inner)


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
        op=record.attrs.get("kind", record.name),
        part=part,
        x=record.shapes[0],
        weight=record.shapes[place] if has_weight else (),
        y=record.cost.output,
        stride=record.attrs.get("stride", 1),
        macs=getattr(record.cost.macs, counted),
        flops=getattr(record.cost.flops, counted),
        bytes=moved(record, part),
        trains_weight=has_weight and record.needs[place],
    )


def moved(record: OpRecord, part: str) -> int:
    """Bytes that one pass of a record reads and writes."""
    flows, dtype, kept = record.op.activations, record.dtype, record.cost.kept
    y = nbytes(record.cost.output, dtype)
    sizes = [nbytes(shape, dtype) for shape in record.shapes]
    wanted = [size if need else 0 for size, need in zip(sizes, record.needs, strict=True)]
    if part in (FORWARD, RECOMPUTE):
        return sum(sizes) + y + sum(k.nbytes for k in kept if k.source is None)
    if part == GRAD_INPUT:
        read = sum(k.nbytes for k in kept if "grad_input" in k.needed_for)
        return y + read + sum(sizes[flows:]) + sum(wanted[:flows])
    read = sum(k.nbytes for k in kept if set(k.needed_for) & set(OF_PARAMETERS))
    return y + read + sum(wanted[flows:])
