"""One pass over a map: norm, activation and what its rule keeps; and the pass back.

    up     t = x, or x scale + shift, or x_hat = (x - mean) inv_std (kept) and then t = x_hat scale + shift
           y = activation(t); codes of t, or t itself, are kept as the rule says
    down   g = gy slope; sums of g (and of g x_hat) per channel and group, in float64; with frozen statistics g scale

Every operation rounds by itself, in this order. NumPy's lines below define the result; the
kernels give the same bits in one pass, and for a whole block the same calls run piece by piece.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minitl.arrays import Array, Shape, positions
from minitl.bits import pack, unpack
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, by_groups
from minitl.kernels.rules import BATCH, FROZEN, NONE, Codes, FromInput, FromOutput, codes_of, formula, rule_of
from minitl.kernels.sums import in_order
from minitl.kernels.target import masked
from minitl.kernels.tasks import NOTHING, Argument, Recorder, Span, given, spans, table_of

compiled = Lazily("minitl.kernels.compiled.elementwise")

IDENTITY = "identity"
What = tuple[int, str, str]  # the norm, the activation and its rule


class Up(NamedTuple):
    """The arrays of a pass up beside x and y, in the kernel's order; those without use stay NOTHING."""

    norm: int = NONE
    name: str = IDENTITY
    rule: str = ""
    scale: Array = NOTHING
    shift: Array = NOTHING
    mean: Array = NOTHING
    inv_std: Array = NOTHING
    x_hat: Array = NOTHING
    kept: Array = NOTHING
    packed: Array = NOTHING


class Down(NamedTuple):
    """The arrays of a pass down beside gy and g, in the kernel's order; `sums` and `dots` are (groups, C), float64."""

    norm: int = NONE
    name: str = IDENTITY
    rule: str = ""
    scale: Array = NOTHING
    x_hat: Array = NOTHING
    kept: Array = NOTHING
    packed: Array = NOTHING
    sums: Array = NOTHING
    dots: Array = NOTHING


def up(x: Array, y: Array, p: Up) -> None:
    """Run the pass up; y may be x."""
    if interpreted():
        _loop_up(x, y, p)
        return
    if codes_of(rule_of(p.name, p.rule) if p.rule else None):
        p.packed[:] = 0
    up_table(x.shape, x.dtype.name, *p[:3]).run(x, y, *p[3:])


def down(gy: Array, g: Array, p: Down) -> None:
    """Run the pass down; g may be gy."""
    if interpreted():
        _loop_down(gy, g, p)
        return
    for total in (p.sums, p.dots):
        total[:] = 0
    down_table(gy.shape, gy.dtype.name, *p[:3]).run(gy, g, *p[3:])


def _loop_up(x: Array, y: Array, p: Up) -> None:
    t, rule = x, rule_of(p.name, p.rule) if p.rule else None
    if p.norm == BATCH:
        p.x_hat[:] = (x - p.mean) * p.inv_std
        t = p.x_hat
    if p.norm != NONE:
        t = t * p.scale + p.shift
    if isinstance(rule, FromInput):
        p.kept[:] = t
    if codes := codes_of(rule):
        p.packed[:] = pack(codes.encode(t), codes.bits)
    y[:] = formula(p.name)(t)


def _loop_down(gy: Array, g: Array, p: Down) -> None:
    g[:] = gy * slopes(rule_of(p.name, p.rule), p.packed, p.kept, gy.shape, gy.dtype.name) if p.rule else gy
    if p.norm != NONE:
        for number, rows in enumerate(by_groups(g)):
            p.sums[number] = in_order(rows.astype(np.float64))
    if p.norm == BATCH:
        for number, (rows, values) in enumerate(zip(by_groups(g), by_groups(p.x_hat), strict=True)):
            p.dots[number] = in_order(rows.astype(np.float64) * values)
    if p.norm == FROZEN:
        g *= p.scale


def slopes(rule: Codes | FromInput | FromOutput, packed: Array, kept: Array, shape: Shape, dtype: str) -> Array:
    """What a rule multiplies gy by, from what it kept."""
    if isinstance(rule, Codes):
        return np.array(rule.levels, dtype)[unpack(packed, rule.bits, shape)]
    bits = (unpack(packed, 1, shape) != 0,) if codes_of(rule) else ()
    with np.errstate(divide="ignore"):
        return np.asarray(rule.slope(kept, *bits))


def up_call(record: Recorder, span: Span, channels: int, dtype: str, what: What, *places: Argument) -> None:
    """Record the pass up of positions `span`; places are of x, y, the arrays of `Up`, and `edge` (see the kernel)."""
    record.call(compiled.finish(dtype, *what, masked(channels, dtype)), *span, channels, *places)


def down_call(record: Recorder, span: Span, channels: int, dtype: str, what: What, *places: Argument) -> None:
    """Record the pass down of positions `span`, of one group; places are of gy, g and the arrays of `Down`."""
    record.call(compiled.slope(dtype, *what, masked(channels, dtype)), *span, channels, *places)


@table_of
def up_table(record: Recorder, x: Shape, dtype: str, *what: Any) -> None:
    """x, y, the arrays of `Up`: in pieces that share no byte of codes."""
    for span in spans(positions(x), 8):
        record.task()
        up_call(record, span, x[-1], dtype, what, *given(9))


@table_of
def down_table(record: Recorder, x: Shape, dtype: str, *what: Any) -> None:
    """gy, g, the arrays of `Down`: in groups where sums are wanted."""
    norm, *_ = what
    for number, span in enumerate(list(spans(positions(x), 8)) if norm == NONE else Groups(x)):
        *places, sums, dots = given(8)
        at = number * x[-1] * 8
        record.task()
        down_call(record, span, x[-1], dtype, what, *places, sums + at * (norm != NONE), dots + at * (norm == BATCH))
