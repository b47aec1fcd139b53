"""`minitl plan`: what to tune within a budget."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from minitl import devices
from minitl.accounting import predict, timeline
from minitl.accounting.plan import QUANTITIES, Entry, Plan, bests, candidates, entries, largest, plan
from minitl.accounting.plan_plot import plot_plan
from minitl.accounting.predict import MOST
from minitl.accounting.table import table
from minitl.accounting.tidy import csv_text
from minitl.accounting.timeline import Timeline
from minitl.errors import RuleError, ShapeError, ValueRangeError
from minitl.kernels.compile import interpreted
from minitl.kernels.threads import count
from minitl.methods import METHODS, Method
from minitl.networks import Model, Network
from minitl.pixels import PIXELS
from minitl.training.progress import bar
from minitl.verbs import options, plan_device, trained
from minitl.verbs.terminal import PLAIN, show

HELP = "what to tune within a budget of memory or work"
DESCRIPTION = """Tries every method with every number of blocks, on shapes alone, and names the best that fits: the one
that trains most parameters, then exact gradients before approximate ones, then fewer FLOPs."""
EXAMPLES = """
minitl plan mobilenet_v3_small --budget 40MB
minitl plan mobilenet_v2 --budget 16MiB --of kept --batch 4 --plot plan.png
minitl plan mobilenet_v2 --budget 40MB --apply --optimizer none --largest batch
minitl plan mobilenet_v3_small --budget 2GFLOPs
minitl plan irb --budget 8,000,000 --csv
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
FEW = 1000  # no step takes less of anything
FLOPS = {f"{prefix}{unit}": scale for prefix, scale in PREFIXES.items() for unit in ("", "flop", "flops")}
PUBLIC = ("method", "blocks", "kept_bytes", "total_bytes", "peak_bytes", "flops", "trained_parameters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    options.add_model(parser)
    told = "as 16MiB, 40MB, 500,000; FLOPs as 2GFLOPs (default: the device's memory)"
    parser.add_argument("--budget", metavar="SIZE", help=told)
    parser.add_argument("--device", metavar="NAME|FILE.toml", help="as in estimate: does it fit, how long, what energy")
    parser.add_argument(
        "--of",
        choices=tuple(QUANTITIES),
        help="what is budgeted: kept for backward; total, with parameters, gradients and optimizer; peak, the most "
        "alive at any moment; or flops (default: peak; flops where the budget is FLOPs)",
    )
    options.add_step(parser)
    options.add_memory(parser)
    options.add_method_options(parser)
    parser.add_argument(
        "--largest", choices=tuple(MOST), help="also find the largest that each way of the Pareto set can take"
    )
    options.add_plot(parser, "the Pareto set")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object on stdout")
    form.add_argument("--csv", action="store_true", help="every method and number of blocks as comma-separated values")


def run(args: argparse.Namespace) -> int:
    """Plan; 0 if something fits (else an error says what would)."""
    budget, of = parse_budget(plan_device.budget(args), args.of)
    with options.threads(args):
        model = options.model(args)
        ways = _tried(args, model)
        found = plan(ways, budget=budget, of=of)
        told = found.entries if args.csv else [*found.pareto, *filter(None, [found.next])]
        on_device = plan_device.answers(args, model, told)
        limits = [_largest(args, found, model, way) for way in found.pareto] if args.largest else []
        if args.json:
            line = _timeline(args, found.best, model)
            about = {"network": model.name, **_about(args)}
            options.print_json("plan", {**about, **_json(found, line, on_device, limits, args.largest)})
        elif args.csv:
            about = {"network": model.name, **_about(args), "rules": ";".join(args.rule)}
            print(csv_text(_lines(about, found, on_device)), end="")
        else:
            step = f"batch {args.batch}, {args.resolution} x {args.resolution}, optimizer {args.optimizer}"
            print(f"{model.name}, {step}{options.options_text(args)}")
            _print(found, _timeline(args, found.best, model), limits, args.largest)
            for hint in _more(args, found, model):
                show(hint)
            if command := _command(args, found.best, model):
                print(
                    f"\nto train it, on images of {model.num_classes} classes (IMAGES: a folder for each):\n\n{command}"
                )
            if on_device:
                print(f"\non {devices.get(args.device).title}:\n")
                show(plan_device.text(on_device))
    if args.plot:
        plot_plan(found, args.plot, f"{model.name}, batch {args.batch}, {args.resolution} px")
        options.tell_file(args, args.plot)
    return 0


def _tried(args: argparse.Namespace, model: Model) -> tuple[Entry, ...]:
    """All ways, each counted as it is tried."""
    with bar("try all methods", len(candidates(model))) as shown:

        def method(name: str, blocks: int | None) -> Method:
            shown.step()
            return options.method(args, name, blocks)

        return entries(model, **options.step(args), method=method)


def _about(args: argparse.Namespace) -> dict[str, Any]:
    """The step that is planned."""
    names = ("batch", "resolution", "optimizer", "int8", "checkpoint", "apply", "images")
    return {**{name: getattr(args, name) for name in names}, "rules": args.rule, "threads": count()}


def _more(args: argparse.Namespace, found: Plan, model: Model) -> Iterator[str]:
    """For each option that saves memory, the best way of the Pareto set that would fit with it and beats `best`."""
    more: dict[str, tuple[str, Any]] = {"--int8": ("int8", True), "--checkpoint": ("checkpoint", True)}
    if isinstance(model, Network):
        model.normalisation = "imagenet"  # any takes the same memory
        more[f"--images {PIXELS}"] = "images", PIXELS
    for told, (name, value) in more.items() if found.of != "flops" else ():
        for way in () if getattr(args, name) == value else reversed(found.pareto):
            if way == found.best:
                break
            other = argparse.Namespace(**{**vars(args), name: value})
            options.method(other, way.method, way.blocks).apply(model)
            try:
                totals = predict(model, **options.step(other)).totals
            except RuleError:
                continue  # it cannot read pixels
            need = int(getattr(totals, QUANTITIES[found.of]))
            if need <= found.budget:
                yield f"with {told} {way.name} fits: {_amount(need, found.of)}"
                break


def _command(args: argparse.Namespace, way: Entry, model: Model) -> str:
    """What trains as planned; empty where `train` cannot: a block, a model's other width, float64, no optimizer."""
    other = args.dtype != "float32" or (args.width is not None and trained.named(args.network))
    if not isinstance(model, Network) or other or args.optimizer == "none":
        return ""
    step = (word for name in ("batch", "resolution", "optimizer") for word in (f"--{name}", str(getattr(args, name))))
    lines = [
        ("minitl", "train", "IMAGES", *_origin(args.network), *(("--width", f"{args.width}") if args.width else ())),
        ("--method", way.method, *(("--blocks", str(way.blocks)) if way.blocks else ())),
        (*step, *(f"--{name}" for name in ("int8", "checkpoint", "apply") if getattr(args, name))),
        *([("--images", args.images)] if args.images == PIXELS else ()),
        *(("--rule", rule) for rule in args.rule),
    ]
    return " \\\n    ".join(map(shlex.join, lines))


def _origin(network: str) -> tuple[str, str]:
    """Where training begins: at a network, or at a model that is trained on."""
    return ("--weights" if trained.named(network) else "--network", network)


def _timeline(args: argparse.Namespace, way: Entry, model: Model) -> Timeline:
    """The step of one way."""
    options.method(args, way.method, way.blocks).apply(model)
    return timeline(model, **options.step(args))


def _largest(args: argparse.Namespace, found: Plan, model: Model, way: Entry) -> int:
    """The largest batch or resolution with which the way fits."""
    options.method(args, way.method, way.blocks).apply(model)
    step = options.step(args)

    def fits(number: int) -> bool:
        try:
            totals = predict(model, **{**step, args.largest: number}).totals
        except (ShapeError, ValueRangeError):  # too few positions for a norm, or for a side module
            return False
        need = totals.flops.total if found.of == "flops" else getattr(totals, QUANTITIES[found.of])
        return bool(need <= found.budget)

    return largest(fits, step[args.largest], MOST[args.largest])


def parse_budget(text: str, of: str | None = None) -> tuple[int, str]:
    """The budget and what it is of: `16MiB`, `40 mb` and `1,000,000` are bytes, `2GFLOPs` operations.

    `of` is what was asked for; without it FLOPs are of `flops`, and anything else of `peak`. Raises ValueRangeError
    for what cannot be read, or not in the unit that `of` has, and for so few without a unit that a prefix is missing.
    """
    match = BUDGET.fullmatch(text)
    unit = match[2].lower() if match else ""
    of = of or ("flops" if unit.endswith(("flop", "flops")) else "peak")
    units = FLOPS if of == "flops" else BYTES
    budget = int(Decimal(match[1].replace(",", "")) * units[unit]) if match and unit in units else 0
    if not 1 <= budget <= 10**18:
        example = "2GFLOPs or 500M" if of == "flops" else "16MiB (2^20), 40MB (1e6) or a number of bytes"
        raise ValueRangeError(
            f"budget: cannot read {text!r} as {'FLOPs' if of == 'flops' else 'bytes'}",
            remedy=f"write it like {example}, from 1 to 10^18",
        )
    if not unit and budget < FEW:
        one, meant = ("FLOPs", f"{text.strip()}MFLOPs") if of == "flops" else ("bytes", f"{text.strip()}MB")
        raise ValueRangeError(f"budget: {budget} {one} are too few", remedy=f"did you mean {meant}?")
    return budget, of


def _json(
    found: Plan, line: Timeline, on_device: plan_device.Answers, limits: list[int], what: str | None
) -> dict[str, Any]:
    def entry(way: Entry) -> dict[str, Any]:
        public = {name: value for name, value in asdict(way).items() if name in PUBLIC}
        return {**public, "device": plan_device.columns(on_device[way])} if way in on_device else public

    front = [entry(way) for way in found.pareto]
    for way, limit in zip(front, limits, strict=bool(limits)):
        way[f"largest_{what}"] = limit
    peak, kinds = line.peak, line.by_kind()
    return {
        "budget_bytes": found.budget,
        "of": found.of,
        "best": entry(found.best),
        "pareto": front,
        "binding": _binding(found),
        "next": entry(found.next) if found.next else None,
        "best_by": {of: entry(way) if way else None for of, way in bests(found).items()},
        "peak": {"in": peak.where, "bytes": {kind: steps[peak.at] for kind, steps in kinds.items()}},
    }


def _lines(about: dict[str, Any], found: Plan, on_device: plan_device.Answers) -> Iterator[dict[str, Any]]:
    for way in found.entries:
        yield {**about, **_line(way, found), **plan_device.columns(on_device.get(way), "device_")}


def _line(way: Entry, found: Plan) -> dict[str, Any]:
    fits = way.need(found.of) <= found.budget
    return {**asdict(way), "fits": fits, "pareto": way in found.pareto, "best": way == found.best}


def _binding(found: Plan) -> dict[str, Any]:
    used = found.best.need(found.of)
    short = found.next.need(found.of) - found.budget if found.next else None
    return {"of": found.of, "budget": found.budget, "used": used, "left": found.budget - used, "short_of_next": short}


def _print(found: Plan, line: Timeline, limits: list[int], what: str | None) -> None:
    def cells(way: Entry, limit: list[int]) -> tuple[str, ...]:
        memory = (f"{count / 1e6:,.3f}" for count in (way.kept_bytes, way.total_bytes, way.peak_bytes))
        fits = "best" if way == found.best else "fits" if way.need(found.of) <= found.budget else ""
        gradients = "exact" if way.exact else "approx."
        most = (f"{n:,}" for n in limit)
        return (way.name, f"{way.trained_parameters:,}", gradients, *memory, f"{way.flops / 1e6:,.1f}", *most, fits)

    print(f"budget: {_amount(found.budget, found.of)} of {found.of}\n\nPareto set, the cheapest first:")
    asked = (f"largest {what}",) if what else ()
    header = ("method", "trains", "gradients", "kept MB", "total MB", "peak MB", "MFLOPs", *asked, "")
    spare = [f"{of} MB" for of in ("kept", "total", "peak") if of != found.of]
    optional = ([] if found.of == "flops" else ["MFLOPs"]) + spare
    limit = [[n] for n in limits] if what else [[] for _ in found.pareto]
    body = [cells(way, most) for way, most in zip(found.pareto, limit, strict=True)]
    show(table(header, body, right=(1, 3, 4, 5, 6, *(7 for _ in asked)), optional=optional))
    print()
    show(f"best: {found.best.name}, {_amount(found.best.need(found.of), found.of)}")
    show(f"{found.best.method}: trains {METHODS[found.best.method].summary}")
    if interpreted():
        show(PLAIN)
    if found.next:
        short = found.next.need(found.of) - found.budget
        show(f"binding: {found.of}; the next step up is {found.next.name}, {_amount(short, found.of)} over the budget")
    else:
        print("binding: nothing; there is no better method at any budget")
    if found.of != "flops":
        show(*_why(found, line))


def _why(found: Plan, line: Timeline) -> list[str]:
    """Where kept, total and peak choose differently, and what the peak of the best is made of."""
    lines = []
    for of, way in bests(found).items():
        if way and way != found.best:
            over = ", over the budget" * (way.peak_bytes > found.budget)
            lines.append(f"by {of} alone: {way.name}, {_amount(way.need(of), of)}; it peaks at "
                         f"{_amount(way.peak_bytes, 'peak')}{over}")  # fmt: skip
    alive = sorted(((n[line.peak.at], kind) for kind, n in line.by_kind().items()), reverse=True)
    parts = ", ".join(f"{kind} {n / 1e6:,.3f}" for n, kind in alive if n >= 500)
    why = f"{found.best.name} peaks in {line.peak.where} (MB): {parts}"
    return [f"{why}\n{chr(10).join(lines)}".rstrip()]


def _amount(count: int, of: str) -> str:
    return f"{count / 1e6:,.1f} MFLOPs" if of == "flops" else f"{count:,} bytes ({count / 1e6:,.3f} MB)"
