"""`minitl inspect`: what a training step keeps, why, and how many bytes it is."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from minitl import methods
from minitl.accounting import Arena, arena, measure, page, predict, timeline
from minitl.accounting.arena_file import FORMS, write_arena
from minitl.accounting.conventions import CONVENTIONS, STANDARD
from minitl.accounting.idle_rules import idle_rules
from minitl.accounting.op_by_op import op_by_op
from minitl.accounting.plot import plot_kept
from minitl.accounting.report import block_of, sums
from minitl.accounting.tidy import buffers, csv_text, parts, totals
from minitl.accounting.timeline_plot import plot_timelines
from minitl.errors import UsageError
from minitl.kernels.threads import count
from minitl.networks import Model
from minitl.verbs import options
from minitl.verbs.inspection import Inspection, key_of
from minitl.verbs.inspection_text import print_one, print_several

HELP = "per-layer memory and work of a training step"
DESCRIPTION = """Lists what one training step keeps between forward and backward: every buffer, which gradient
needs it, and its bytes; then the totals. From shapes alone, unless --measure is given."""
EXAMPLES = """
minitl inspect irb --method mobiletl
minitl inspect irb --attr activation=relu6 --against ft-blocks
minitl inspect mobilenet_v2 --method ft-blocks,mobiletl --by block
minitl inspect mobilenet_v2 --blocks 3 --batch 4 --measure
minitl inspect mobilenet_v2 --by layer --plot memory.png
minitl inspect mobilenet_v2 --timeline --apply --optimizer none --images uint8
minitl inspect mobilenet_v2 --method ft-blocks,mobiletl --timeline --plot timeline.png
minitl inspect mobilenet_v3_small --html step.html --arena step.h
minitl inspect photos.safetensors --by block     # the step by which `minitl train` trained a model
"""
MOST_BARS = 60  # that are read at ease
ABOUT = ("network", "method", "blocks", "batch", "resolution")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `inspect`."""
    options.add_model(parser)
    named = ", ".join(methods.METHODS)
    parser.add_argument(
        "--method",
        metavar="NAME[,NAME...]",
        help=f"one, or several beside each other: {named} (default: {options.DEFAULTS['method']})",
    )
    parser.add_argument("--blocks", type=int, metavar="K", help="blocks tuned from the top (default: 5, or all)")
    options.add_method_options(parser)
    options.add_step(parser)
    options.add_memory(parser)
    parser.add_argument("--flops", default=STANDARD, metavar="NAME", help=f"how FLOPs are counted: {_conventions()}")
    parser.add_argument("--by", choices=("layer", "block", "network"), default="layer", help="what a row or bar is of")
    parser.add_argument("--against", metavar="METHOD", help="show the difference from this method")
    parser.add_argument("--measure", action="store_true", help="also run the step, and compare with what it held")
    parser.add_argument(
        "--timeline", action="store_true", help="show what is alive at the peak, and why; --plot draws the whole step"
    )
    parser.add_argument(
        "--arena", type=options.file_of(*FORMS), metavar="FILE",
        help="place every array of the step in one block of memory, and write the offsets (.json, or .h for C)",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=options.file_of(".html"), metavar="FILE",
        help="write one page: sortable ledger, bars, and the timeline with what is alive under the pointer",
    )  # fmt: skip
    options.add_plot(parser, "the kept memory, or the timeline")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object on stdout")
    form.add_argument("--csv", action="store_true", help="what --by asks for as comma-separated values on stdout")


def run(args: argparse.Namespace) -> int:
    """Inspect; 1 if measured bytes are not the predicted ones, else 0."""
    model = options.model(args)
    names = args.method.split(",")
    alone = [f"--{name}" for name in ("against", "arena", "html") if getattr(args, name)]
    if len(set(names)) < len(names) or (alone and len(names) > 1):
        remedy = "name each method once" + (f", and one where there is {alone[0]}" if alone else "")
        raise UsageError(f"--method {args.method} cannot be shown side by side", remedy=remedy)
    if args.html:
        page.check()
    with options.threads(args):
        return _run(args, model, names)


def _run(args: argparse.Namespace, model: Model, names: list[str]) -> int:
    found = [_inspect(args, model, name, args.blocks, measured=args.measure) for name in names]
    block = arena(model, **options.step(args)) if args.arena else None
    other = None
    if args.against:
        blocks = options.blocks_for(args.against, found[0].about["blocks"])
        other = _inspect(args, model, args.against, blocks)
    everything = [*found, *([other] if other else [])]
    if args.json:
        options.print_json("inspect", _json(found, other, args.by, block))
    elif args.csv:
        print(csv_text(line for one in everything for line in _lines(one, args.by)), end="")
    elif len(found) == 1:
        print_one(found[0], other, args)
    else:
        print_several(found, args)
    _write(args, everything, block)
    return int(not all(one.reconciled for one in found))


def _write(args: argparse.Namespace, found: list[Inspection], block: Arena | None) -> None:
    """The files asked for."""
    if args.plot:
        _plot(found, args)
        bars = len({row.layer for row in found[0].ledger.rows})
        many = args.by == "layer" and not args.timeline and bars > MOST_BARS
        options.tell_file(args, args.plot, f" ({bars} bars: --by block draws fewer)" * many)
    if args.arena and block:
        write_arena(block, args.arena, found[0].title)
        size = f"{block.size_bytes:,} bytes, {block.ratio:.4f} of the lower bound"
        options.tell_file(args, args.arena, f" ({size})")
    if args.html and (line := found[0].timeline):
        page.write(args.html, found[0].title, found[0].ledger, line)
        options.tell_file(args, args.html)


def _inspect(
    args: argparse.Namespace, model: Model, name: str, blocks: int | None, *, measured: bool = False
) -> Inspection:
    """One method's step."""
    options.method(args, name, options.blocks_for(name, blocks) if "," in args.method else blocks).apply(model)
    step = options.step(args)
    ledger = predict(model, **step, convention=args.flops)
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
        "apply": args.apply,
        "images": args.images,
        "threads": count(),
        "idle_rules": idle_rules(model, options.rules(args.rule), batch=args.batch, resolution=args.resolution),
        "op_by_op": op_by_op(model, batch=args.batch, resolution=args.resolution),
    }
    line = timeline(model, **step) if args.timeline or args.html else None
    return Inspection(about, block_of(model), ledger, measure(model, **step) if measured else None, line)


def _json(found: list[Inspection], other: Inspection | None, by: str, block: Arena | None) -> dict[str, Any]:
    def data(one: Inspection) -> dict[str, Any]:
        parts = {"by_block": sums(one.ledger.rows, one.block)} if by == "block" else {}
        measured = {"measured": asdict(one.measured)} if one.measured else {}
        line = {"timeline": one.timeline.to_json()} if one.timeline else {}
        return {**one.about, **one.ledger.to_json(), **parts, **measured, **line}

    if len(found) > 1:
        return {"inspections": [data(one) for one in found]}
    against = {"against": {"method": other.about["method"], **other.ledger.to_json()}} if other else {}
    placed = {"arena": block.to_json()} if block else {}
    return {**data(found[0]), **against, **placed}


def _lines(one: Inspection, by: str) -> Any:
    about = {name: one.about[name] for name in ABOUT}
    if by == "layer":
        return buffers(about, one.ledger, one.block)
    return parts(about, one.ledger, one.block) if by == "block" else totals(about, one.ledger)


def _plot(found: list[Inspection], args: argparse.Namespace) -> None:
    if lines := {one.label: one.timeline for one in found if one.timeline and args.timeline}:
        plot_timelines(lines, args.plot, title=found[0].step)
        return
    ledgers = {one.label: one.ledger for one in found}
    plot_kept(ledgers, args.plot, title=found[0].step, by=key_of(found, args.by))


def _conventions() -> str:
    return ", ".join(name if name == STANDARD else f"{name} (a fit)" for name in CONVENTIONS)
