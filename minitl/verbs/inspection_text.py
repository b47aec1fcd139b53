"""Inspections as people read them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from textwrap import fill

from minitl import methods
from minitl.accounting import Ledger, Measured
from minitl.accounting.ledger import rows_table, shape_text, totals_tables
from minitl.accounting.report import (
    against_table,
    block_table,
    methods_table,
    percent,
    totals_beside,
)
from minitl.accounting.table import Table, table
from minitl.accounting.timeline import Timeline
from minitl.kernels.compile import interpreted
from minitl.verbs import options
from minitl.verbs.inspection import Inspection, key_of
from minitl.verbs.terminal import PLAIN, show

READING = """Each row is a buffer that forward keeps because backward needs it for the
gradient of the layer's input, weight, bias (a norm's shift) or scale, or to
recompute something: `x` is a layer's input, `x_hat` and `inv_std` a norm's
normalised input and 1 / standard deviation, `mask` and `codes` packed bits that
select an activation's slope, `gate` the multiplier of squeeze-and-excite. A
layer without a row keeps nothing."""
PARTS = "Kept bytes, and the gradient that needs them (the first, of several):"
TRACED = "(the predicted peak has a room of a few kilobytes for vectors of one number\nper channel)"
FEW, WIDTH = 4, 80  # layers that are named, columns
SMALL = 0.002  # of the peak: smaller buffers are told together


def print_one(found: Inspection, other: Inspection | None, args: argparse.Namespace) -> None:
    """One method's step, perhaps against another's."""
    ledger = found.ledger
    parts: list[str] = ["\n".join([_network(found, args), *map(_trains, filter(None, (found, other)))])]
    if other:
        names = found.about["method"], other.about["method"]
        parts.append(against_table(ledger, other.ledger, names, key_of([found, other], args.by)))
        parts.append(totals_beside(dict(zip(names, (ledger, other.ledger), strict=True))))
    elif found.timeline and args.timeline:
        parts += timeline_parts(found.timeline)
    elif args.by == "layer":
        parts += [READING, rows_table(ledger.rows)]
    elif args.by == "block":
        parts += [PARTS, block_table(ledger, found.block)]
    if not other:
        parts += totals_tables(ledger.totals)
    parts += _alone(found.about["op_by_op"])
    if interpreted():
        parts.append(PLAIN)
    if found.measured:
        parts += [_measured_table(ledger, found.measured), TRACED]
    show(*parts)


def print_several(found: Sequence[Inspection], args: argparse.Namespace) -> None:
    """Several methods' steps side by side."""
    ledgers = {one.about["method"]: one.ledger for one in found}
    parts: list[str] = ["\n".join([_network(found[0], args), *map(_trains, found)])]
    for one in found:
        if one.timeline and args.timeline:
            parts += [one.label, *timeline_parts(one.timeline)]
    if args.by != "network" and not args.timeline:
        parts.append(methods_table(ledgers, key_of(found, args.by)))
    parts.append(totals_beside(ledgers))
    for one in found:
        if one.measured:
            parts += [one.label, _measured_table(one.ledger, one.measured)]
    if interpreted():
        parts.append(PLAIN)
    show(*parts)


def timeline_parts(line: Timeline) -> list[str]:
    """When the peak is, and what is alive then: large buffers one by one, the others together."""
    peak, kinds = line.peak, line.by_kind()
    alive = [b for b in line.alive(peak.at) if b.bytes]
    shown = [b for b in alive if b.bytes >= SMALL * peak.bytes and not b.always]
    body = [(b.layer, b.name, b.why, b.shape, b.bytes, _when(line, b.first), b.until) for b in shown]
    for what, rest in (
        ("held between steps", [b for b in alive if b.always]),
        (f"smaller than {SMALL:.1%}", [b for b in alive if not b.always and b not in shown]),
    ):
        count = f"{len(rest)} arrays"
        body.append(("", count, what, (), sum(b.bytes for b in rest), "", "the end" if rest and rest[0].always else ""))
    rows = [
        (layer, name, why, shape_text(shape), f"{count:,}", f"{100 * count / peak.bytes:.1f}", first, last)
        for layer, name, why, shape, count, first, last in body
    ]
    header = ("layer", "buffer", "why it is there", "shape", "bytes", "%", "since", "until")
    optional = ("shape", "since", "until", "%")
    parts = [(kind, f"{steps[peak.at]:,}", f"{max(steps):,}") for kind, steps in kinds.items()]
    return [
        f"Peak: {peak.bytes:,} bytes in {peak.where} (moment {peak.at} of {len(line.moments)}). Alive then:",
        table(header, rows, right=(4, 5), optional=optional),
        table(("bytes of", "at the peak", "most ever"), parts, right=(1, 2)),
    ]


def _when(line: Timeline, at: int) -> str:
    return line.moments[at].where if at else "the beginning"


def _network(found: Inspection, args: argparse.Namespace) -> str:
    about = found.about
    step = f"batch {args.batch}, {args.resolution} x {args.resolution}, {about['dtype']}, optimizer {args.optimizer}"
    same = ", SAME padding by mirrored images and kernels" * (about["padding"] == "same")
    return f"{about['network']}, {step}{same}{options.options_text(args)}"


def _trains(found: Inspection) -> str:
    idle = found.about["idle_rules"]
    without = f"\n{found.label}: without effect, no layer goes backward by it: --rule {', '.join(idle)}" if idle else ""
    return f"{found.label}: trains {methods.METHODS[found.about['method']].summary}{without}"


def _alone(found: dict[str, str]) -> list[str]:
    """The layers that run op by op, by the reason."""
    layers: dict[str, list[str]] = {}
    for layer, why in found.items():
        layers.setdefault(why, []).append(layer)
    lines = []
    for why, names in layers.items():
        some = ", ".join(names[:FEW]) + (f", ... ({len(names)} in all)" if len(names) > FEW else "")
        lines.append(fill(f"op by op: {some}: {why}", WIDTH))
    return ["\n".join(lines)] if lines else []


def _measured_table(ledger: Ledger, measured: Measured) -> Table:
    rows = [
        ("kept: predicted from shapes", ledger.kept_bytes, ledger.kept_bytes),
        ("kept: held by the tape", measured.held_bytes, ledger.kept_bytes),
        ("kept: traced by the allocator", measured.traced_bytes, ledger.kept_bytes),
        ("peak: predicted from lifetimes", measured.predicted_peak_bytes, measured.predicted_peak_bytes),
        ("peak: traced by the allocator", measured.traced_peak_bytes, measured.predicted_peak_bytes),
    ]
    body = [(name, f"{got:,}", f"{got - expected:+,}", percent(got, expected)) for name, got, expected in rows]
    return table(("a real step", "bytes", "difference", "%"), body, right=(1, 2, 3))
