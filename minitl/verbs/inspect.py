"""`minitl inspect`: what a training step keeps, why, and how many bytes it is."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any, NamedTuple

from minitl import methods
from minitl.accounting import Ledger, Measured, measure, predict
from minitl.accounting.conventions import CONVENTIONS, STANDARD
from minitl.accounting.ledger import rows_table, totals_table
from minitl.accounting.plot import plot_kept
from minitl.accounting.report import Key, against_table, block_of, block_table, by_layer, percent, sums
from minitl.accounting.table import table
from minitl.networks import Model
from minitl.verbs import options

HELP = "per-layer memory and work of a training step"
DESCRIPTION = """Lists what one training step keeps between forward and backward: every buffer, which gradient
needs it, and its bytes; then the totals. From shapes alone, unless --measure is given."""
READING = """Each row is a buffer that forward keeps because a gradient of backward will need it: `x` is a layer's
input, `x_hat` and `inv_std` a norm's normalised input and 1 / standard deviation, `mask` and `codes`
packed bits that select an activation's slope, `gate` the multiplier of squeeze-and-excite. A layer
without a row keeps nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `inspect`."""
    options.add_model(parser)
    parser.add_argument("--method", default="mobiletl", metavar="NAME", help=f"{', '.join(methods.METHODS)}")
    parser.add_argument("--blocks", type=int, metavar="K", help="blocks tuned from the top (default: 5, or all)")
    options.add_method_options(parser)
    options.add_step(parser)
    parser.add_argument(
        "--flops", default=STANDARD, metavar="NAME", help=f"how FLOPs are counted: {', '.join(CONVENTIONS)} (a fit)"
    )
    parser.add_argument("--by", choices=("layer", "block"), default="layer", help="one row a buffer, or one a block")
    parser.add_argument("--against", metavar="METHOD", help="show the difference from this method")
    parser.add_argument("--measure", action="store_true", help="also run the step, and compare with what it held")
    options.add_plot(parser, "the kept memory")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object on stdout")
    form.add_argument("--csv", action="store_true", help="the rows as comma-separated values on stdout")


class Inspection(NamedTuple):
    """What was asked for, and what was found."""

    args: argparse.Namespace
    about: dict[str, Any]
    block: Key
    ledger: Ledger
    other: Ledger | None
    measured: Measured | None


def run(args: argparse.Namespace) -> int:
    """Inspect; 1 if measured bytes are not the predicted ones, else 0."""
    model = options.model(args)
    step: dict[str, Any] = {
        "batch": args.batch,
        "resolution": args.resolution,
        "optimizer_slots": options.slots(args),
    }
    options.method(args, args.method, args.blocks).apply(model)
    ledger = predict(model, **step, convention=args.flops)
    measured = _measure(model, step, ledger) if args.measure else None
    about = {
        "network": model.name,
        "method": model.method,
        "blocks": model.tuned_blocks,
        "batch": args.batch,
        "resolution": args.resolution,
        "classes": model.num_classes,
        "dtype": model.dtype,
        "padding": model.padding,
        "optimizer": args.optimizer,
        "int8": args.int8,
        "checkpoint": args.checkpoint,
        "rules": args.rule,
    }
    other = None
    if args.against:
        options.method(args, args.against, options.blocks_for(args.against, model.tuned_blocks)).apply(model)
        other = predict(model, **step, convention=args.flops)
    found = Inspection(args, about, block_of(model), ledger, other, measured)
    if args.json:
        options.print_json("inspect", _json(found))
    elif args.csv:
        print(ledger.to_csv(), end="")
    else:
        _print(found)
    if args.plot:
        _plot(found)
        options.tell_plot(args)
    return int(measured is not None and not measured.held_bytes == measured.traced_bytes == ledger.kept_bytes)


def _measure(model: Model, step: dict[str, Any], predicted: Ledger) -> Measured:
    peak = predicted.totals.peak_bytes or 0
    if peak > sys.maxsize:  # NumPy would not even try
        raise MemoryError(f"a step of {peak:,} bytes")
    return measure(model, **step)


def _plot(found: Inspection) -> None:
    args, about = found.args, found.about
    ledgers = {about["method"]: found.ledger} | ({args.against: found.other} if found.other else {})
    title = f"{about['network']}, batch {args.batch}, {args.resolution} px"
    plot_kept(ledgers, args.plot, title=title, by=found.block if args.by == "block" else None)


def _json(found: Inspection) -> dict[str, Any]:
    data = {**found.about, **found.ledger.to_json()}
    if found.args.by == "block":
        data["by_block"] = sums(found.ledger.rows, found.block)
    if found.other:
        data["against"] = {"method": found.args.against, **found.other.to_json()}
    if found.measured:
        data["measured"] = asdict(found.measured)
    return data


def _print(found: Inspection) -> None:
    args, about, ledger = found.args, found.about, found.ledger
    count = about["blocks"]
    tuned = f" (top {count} blocks)" if count and count > 1 else " (top block)" if count else ""
    print(
        f"{about['network']}, {about['method']}{tuned}: trains {methods.METHODS[about['method']].summary}\n"
        f"batch {args.batch}, {args.resolution} x {args.resolution}, {about['dtype']}, optimizer {args.optimizer}"
        f"{', SAME padding by mirrored images and kernels' * (about['padding'] == 'same')}"
        f"{options.options_text(args)}\n"
    )
    if found.other:
        key = found.block if args.by == "block" else by_layer
        print(against_table(ledger, found.other, (about["method"], args.against), key))
    elif args.by == "block":
        print(block_table(ledger, found.block))
    else:
        print(f"{READING}\n\n{rows_table(ledger.rows)}")
    print(f"\n{totals_table(ledger.totals)}")
    if found.measured:
        print(f"\n{_measured_table(ledger, found.measured)}")


def _measured_table(ledger: Ledger, measured: Measured) -> str:
    rows = [
        ("kept: predicted from shapes", ledger.kept_bytes, ledger.kept_bytes),
        ("kept: held by the tape", measured.held_bytes, ledger.kept_bytes),
        ("kept: traced by the allocator", measured.traced_bytes, ledger.kept_bytes),
        ("peak: predicted from lifetimes", measured.predicted_peak_bytes, measured.predicted_peak_bytes),
        ("peak: traced by the allocator", measured.traced_peak_bytes, measured.predicted_peak_bytes),
    ]
    body = [(name, f"{got:,}", f"{got - expected:+,}", percent(got, expected)) for name, got, expected in rows]
    note = "(the traced peak includes Python's own objects and vectors of one number a channel)"
    return table(("a real step", "bytes", "difference", "%"), body, right=(1, 2, 3)) + "\n" + note
