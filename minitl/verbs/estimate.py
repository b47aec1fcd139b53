"""`minitl estimate`: what is known about a training step's time and energy on a device."""

from __future__ import annotations

import argparse

from minitl import devices, methods
from minitl.accounting.device import blocks_table, estimate, rows_table, totals_text
from minitl.accounting.report import block_of
from minitl.devices import Device
from minitl.verbs import options
from minitl.verbs.terminal import show

HELP = "time and energy of a training step on a device: known, bound or unknown"
DESCRIPTION = """Says of every pass of every layer how long it takes on a device: known from a published model, at
least so long (a bound from published peak rates), or unknown, with the reason. The three are never added up to one
number. Whether the step's peak fits the device's memory is answered exactly."""
EXAMPLES = """
minitl estimate mobilenet_v2 --device ef-train --method mobiletl --blocks 5
minitl estimate mobilenet_v3_small --device raspberry-pi-4 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `estimate`."""
    options.add_model(parser)
    told = f"{', '.join(devices.names())}, or a FILE.toml (its form: minitl/devices/device.py)"
    parser.add_argument("--device", required=True, metavar="NAME|FILE.toml", help=told)
    told = f"{', '.join(methods.METHODS)} (default: {options.DEFAULTS['method']})"
    parser.add_argument("--method", metavar="NAME", help=told)
    parser.add_argument("--blocks", type=int, metavar="K", help="blocks tuned from the top (default: 5, or all)")
    options.add_method_options(parser)
    options.add_step(parser)
    options.add_memory(parser)
    parser.add_argument("--by", choices=("layer", "block", "network"), default="layer", help="what a row is of")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Estimate; the exit code is 0 also where much is unknown, which the table says."""
    device = devices.get(args.device)
    model = options.model(args)
    options.method(args, args.method, args.blocks).apply(model)
    with options.threads(args):
        found = estimate(model, device, **options.step(args))
    about = {
        "network": model.name,
        "method": model.method,
        "blocks": model.tuned_blocks,
        "batch": args.batch,
        "resolution": args.resolution,
        "classes": model.num_classes,
    }
    if args.json:
        figures = {name: vars(figure) for name, figure in device.figures.items()}
        options.print_json("estimate", {**about, **found.to_json(), "figures": figures, "note": device.note})
    else:
        way = f"{model.method} {model.tuned_blocks}" if model.tuned_blocks else model.method
        heading = f"{model.name}, {way}, batch {args.batch}, {args.resolution} x {args.resolution}, on {device.title}"
        parts = [heading, totals_text(found), _figures(device)]
        if args.by != "network":
            parts.append(rows_table(found.rows) if args.by == "layer" else blocks_table(found.rows, block_of(model)))
        show(*parts)
    return 0


def _figures(device: Device) -> str:
    told = [
        f"{name}: {figure.value:,.6g} ({figure.kind}; {figure.scope}; {figure.source})"
        for name, figure in device.figures.items()
    ]
    return "\n".join(filter(None, (device.note, *told)))
