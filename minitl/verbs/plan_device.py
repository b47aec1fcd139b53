"""`minitl plan --device`: what a device says about each way to tune that is proposed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from minitl import devices
from minitl.accounting.device import Estimate, estimate, time_text
from minitl.accounting.plan import Entry
from minitl.accounting.table import Table, table
from minitl.errors import UsageError
from minitl.networks import Model
from minitl.verbs import options

Answers = dict[Entry, Estimate]


def budget(args: argparse.Namespace) -> str:
    """The budget asked for; by default the device's memory, for the peak, which it sets. Raises UsageError without."""
    memory = devices.get(args.device).value("memory_bytes") if args.device else None
    if args.budget is not None:
        return str(args.budget)
    if memory is None:
        what = f"the memory of {args.device} is not published" if args.device else "nothing to plan for"
        raise UsageError(f"plan: {what}", remedy="give a --budget")
    args.of = args.of or "peak"
    return f"{memory:.0f}"


def answers(args: argparse.Namespace, model: Model, ways: Sequence[Entry]) -> Answers:
    """What the device says about a step of each way; nothing without a device."""
    found: Answers = {}
    for way in ways if args.device else ():
        options.method(args, way.method, way.blocks).apply(model)
        found[way] = estimate(model, devices.get(args.device), **options.step(args))
    return found


def columns(said: Estimate | None, prefix: str = "") -> dict[str, Any]:
    """An answer in plain values, their names prefixed; none without a device."""
    if said is None:
        return {}
    totals = {name: value for name, value in said.totals().items() if name not in ("counts", "peak_bytes")}
    return {"device": said.device.name, **{f"{prefix}{name}": value for name, value in totals.items()}}


def text(found: Answers) -> Table:
    """One line per way: whether its peak fits, how long a step takes, and how much energy its known part."""
    fits = {True: "yes", False: "no", None: "unknown"}
    lines = [
        (way.name, fits[said.fits], time_text(said), "unknown" if said.joules is None else f"{said.joules:.4g}")
        for way, said in found.items()
    ]
    return table(("method", "fits", "time of a step", "J of the known part"), lines, right=(3,))
