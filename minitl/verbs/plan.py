"""`minitl plan`: what to tune within a budget."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from minitl import devices
from minitl.accounting.plan import QUANTITIES, Entry, Plan, entries, plan
from minitl.accounting.plot import new_figure, save
from minitl.accounting.table import table
from minitl.accounting.tidy import csv_text
from minitl.errors import ValueRangeError
from minitl.verbs import options, plan_device
from minitl.verbs.terminal import show

HELP = "what to tune within a budget of memory or work"
DESCRIPTION = """Tries every method with every number of blocks, on shapes alone, and names the best that fits: the one
that trains most parameters, then exact gradients before approximate ones, then fewer FLOPs."""
EXAMPLES = """
minitl plan mobilenet_v3_small --budget 40MB --of peak
minitl plan mobilenet_v2 --budget 16MiB --of kept --batch 4 --plot plan.png
minitl plan mobilenet_v3_small --budget 2GFLOPs
minitl plan irb --budget 1,500,000 --csv
minitl plan mobilenet_v3_small --device raspberry-pi-4
"""

# A budget is a number, its thousands perhaps apart by commas, and a unit in any case.
BUDGET = re.compile(
    r"\s*((?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]*\.?[0-9]+)(?:e[0-9]{1,2})?)\s*([A-Za-z]*)\s*", re.ASCII
)
PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
BYTES = {
    f"{prefix}{unit}": scale for prefix, scale in (PREFIXES | BINARY).items() for unit in ("", "b", "byte", "bytes")
}
FLOPS = {f"{prefix}{unit}": scale for prefix, scale in PREFIXES.items() for unit in ("", "flop", "flops")}
PUBLIC = ("method", "blocks", "kept_bytes", "total_bytes", "peak_bytes", "flops", "trained_parameters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    options.add_model(parser)
    told = "as 16MiB, 40MB, 500,000; FLOPs as 2GFLOPs (default: the device's memory)"
    parser.add_argument("--budget", metavar="SIZE", help=told)
    parser.add_argument("--device", metavar="NAME|FILE.toml", help="as in estimate: does it fit, how long, what energy")
    parser.add_argument(
        "--of", choices=tuple(QUANTITIES), help="what is budgeted (default: total; flops where the budget is FLOPs)"
    )
    options.add_step(parser)
    options.add_method_options(parser)
    options.add_plot(parser, "the Pareto set")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object on stdout")
    form.add_argument("--csv", action="store_true", help="every method and number of blocks as comma-separated values")


def run(args: argparse.Namespace) -> int:
    """Plan; 0 if something fits (else an error says what would)."""
    budget, of = parse_budget(plan_device.budget(args), args.of)
    model = options.model(args)
    ways = entries(
        model,
        batch=args.batch,
        resolution=args.resolution,
        optimizer_slots=options.slots(args),
        method=lambda name, blocks: options.method(args, name, blocks),
    )
    found = plan(ways, budget=budget, of=of)
    told = found.entries if args.csv else [*found.pareto, *filter(None, [found.next])]
    on_device = plan_device.answers(args, model, told)
    if args.json:
        options.print_json("plan", _json(found, on_device))
    elif args.csv:
        about = {"network": model.name, "batch": args.batch, "resolution": args.resolution}
        lines = (
            {**about, **_line(way, found), **plan_device.columns(on_device.get(way), "device_")}
            for way in found.entries
        )
        print(csv_text(lines), end="")
    else:
        step = f"batch {args.batch}, {args.resolution} x {args.resolution}, optimizer {args.optimizer}"
        print(f"{model.name}, {step}{options.options_text(args)}")
        _print(found)
        if on_device:
            print(f"\non {devices.get(args.device).title}:\n")
            show(plan_device.text(on_device))
    if args.plot:
        _plot(found, args.plot, f"{model.name}, batch {args.batch}, {args.resolution} px")
        options.tell_file(args, args.plot)
    return 0


def parse_budget(text: str, of: str | None = None) -> tuple[int, str]:
    """The budget and what it is of: `16MiB`, `40 mb` and `1,000,000` are bytes, `2GFLOPs` operations.

    `of` is what was asked for; without it FLOPs are of `flops`, and anything else of `total`. Raises ValueRangeError
    for what cannot be read, or not in the unit that `of` has.
    """
    match = BUDGET.fullmatch(text)
    unit = match[2].lower() if match else ""
    of = of or ("flops" if unit.endswith(("flop", "flops")) else "total")
    units = FLOPS if of == "flops" else BYTES
    budget = int(Decimal(match[1].replace(",", "")) * units[unit]) if match and unit in units else 0
    if not 1 <= budget <= 10**18:
        example = "2GFLOPs or 500M" if of == "flops" else "16MiB (2^20), 40MB (1e6) or a number of bytes"
        raise ValueRangeError(
            f"budget: cannot read {text!r} as {'FLOPs' if of == 'flops' else 'bytes'}",
            remedy=f"write it like {example}, from 1 to 10^18",
        )
    return budget, of


def _json(found: Plan, on_device: plan_device.Answers) -> dict[str, Any]:
    def entry(way: Entry) -> dict[str, Any]:
        public = {name: value for name, value in asdict(way).items() if name in PUBLIC}
        return {**public, "device": plan_device.columns(on_device[way])} if way in on_device else public

    return {
        "budget_bytes": found.budget,
        "of": found.of,
        "best": entry(found.best),
        "pareto": [entry(way) for way in found.pareto],
        "binding": _binding(found),
        "next": entry(found.next) if found.next else None,
    }


def _line(way: Entry, found: Plan) -> dict[str, Any]:
    fits = way.need(found.of) <= found.budget
    return {**asdict(way), "fits": fits, "pareto": way in found.pareto, "best": way == found.best}


def _binding(found: Plan) -> dict[str, Any]:
    used = found.best.need(found.of)
    short = found.next.need(found.of) - found.budget if found.next else None
    return {"of": found.of, "budget": found.budget, "used": used, "left": found.budget - used, "short_of_next": short}


def _print(found: Plan) -> None:
    def line(way: Entry) -> tuple[str, ...]:
        memory = (f"{count / 1e6:,.3f}" for count in (way.kept_bytes, way.total_bytes, way.peak_bytes))
        fits = "best" if way == found.best else "fits" if way.need(found.of) <= found.budget else ""
        gradients = "exact" if way.exact else "approx."
        return (way.name, f"{way.trained_parameters:,}", gradients, *memory, f"{way.flops / 1e6:,.1f}", fits)

    print(f"budget: {_amount(found.budget, found.of)} of {found.of}\n\nPareto set, the cheapest first:")
    header = ("method", "trains", "gradients", "kept MB", "total MB", "peak MB", "MFLOPs", "")
    spare = [f"{of} MB" for of in ("kept", "total", "peak") if of != found.of]
    optional = ([] if found.of == "flops" else ["MFLOPs"]) + spare
    show(table(header, [line(way) for way in found.pareto], right=(1, 3, 4, 5, 6), optional=optional))
    print()
    show(f"best: {found.best.name}, {_amount(found.best.need(found.of), found.of)}")
    if found.next:
        short = found.next.need(found.of) - found.budget
        show(f"binding: {found.of}; the next step up is {found.next.name}, {_amount(short, found.of)} over the budget")
    else:
        print("binding: nothing; there is no better method at any budget")


def _amount(count: int, of: str) -> str:
    return f"{count / 1e6:,.1f} MFLOPs" if of == "flops" else f"{count:,} bytes ({count / 1e6:,.3f} MB)"


def _plot(found: Plan, path: Path, title: str) -> None:
    figure, (axes,) = new_figure(8, 4.5)
    for exact, colour in ((True, "#4477aa"), (False, "#ee6677")):
        ways = [way for way in found.entries if way.exact == exact]
        needs = [way.need(found.of) / 1e6 for way in ways]
        label = "exact gradients" if exact else "approximate gradients"
        axes.scatter(needs, [way.trained_parameters for way in ways], color=colour, alpha=0.4, label=label)
    steps = [(way.need(found.of) / 1e6, way.trained_parameters) for way in found.pareto]
    axes.step(*zip(*steps, strict=True), where="post", color="#666666", linewidth=1, label="Pareto set")
    axes.axvline(found.budget / 1e6, color="#228833", linestyle="--", label="budget")
    best = (found.best.need(found.of) / 1e6, found.best.trained_parameters)
    axes.annotate(found.best.name, best, xytext=(6, -12), textcoords="offset points", fontsize=9, weight="bold")
    unit = "MFLOPs a step" if found.of == "flops" else f"{found.of} memory (MB = 1e6 bytes)"
    axes.set(xscale="log", xlabel=unit, ylabel="trained parameters", title=title)
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks("{x:g}")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, path)
