"""`minitl oracle`: cases for somebody else's implementation, and the check of what it computed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from minitl import oracle
from minitl.accounting.table import table
from minitl.errors import ValueRangeError
from minitl.oracle.recipes import ATTRS, METHODS, parse_attr
from minitl.oracle.store import JSON, TENSORS, CaseError, read_got
from minitl.verbs import options

HELP = "cases to check another implementation with"
DESCRIPTION = """Writes cases (inputs, true results, and how far off a correct result may be) and checks what another
implementation computed from them. `minitl oracle spec` prints what is to be implemented."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `oracle`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the built-in cases")
    listing.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as irb-mobiletl-* (default: all)")
    _add_export(actions.add_parser("export", help="write cases, built-in ones or one of your own"))
    check = actions.add_parser("check", help="compare what was computed with the cases")
    check.add_argument("ref", type=Path, metavar="REF", help="a folder of cases, or one case's folder")
    check.add_argument("got", type=Path, metavar="GOT", help="a folder a case, each with tensors.safetensors or .npz")
    check.add_argument("--only", choices=("forward",), help="leave gradients out")
    spec = actions.add_parser("spec", help="the written specification")
    for action in (listing, check, spec, actions.choices["export"]):
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; each case gets a folder of its own")
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="of built-in cases (default: all)")
    parser.add_argument("--op", metavar="OP", help=f"a case of your own, of {', '.join(ATTRS)}")
    parser.add_argument("--method", metavar="NAME", help=f"of an irb: {', '.join(METHODS)} (default: ft)")
    parser.add_argument("--attr", action="append", default=[], metavar="NAME=VALUE", help="as kernel=5")
    for name in ("batch", "height", "width", "seed"):
        parser.add_argument(f"--{name}", type=int, metavar=name[0].upper())
    parser.add_argument("--dtype", default="float32", help="of inputs and parameters: float32 (default) or float64")
    parser.add_argument("--layout", default="nhwc", help="nhwc (default) or nchw")
    parser.add_argument("--format", choices=("safetensors", "c"), default="safetensors", help="c adds a header")


def run(args: argparse.Namespace) -> int:
    """Run one action; 1 if a check fails."""
    code: int = {"list": _list, "export": _export, "check": _check, "spec": _spec}[args.action](args)
    return code


def _list(args: argparse.Namespace) -> int:
    entries = _entries(args.pattern)
    rows = [
        {"case": e.name, "op": e.op, "method": e.method if e.op == "irb" else "", "attrs": e.attrs, "input": e.size}
        for e in entries
    ]
    if args.json:
        options.print_json("oracle", {"cases": rows})
    else:
        body = [(e.name, e.op, "x".join(map(str, e.size)), _attrs_text(e.attrs)) for e in entries]
        print(table(("case", "op", "N x H x W", "attributes"), body))
    return 0


def _entries(pattern: str) -> list[Any]:
    entries = oracle.entries(pattern)
    if not entries:
        raise ValueRangeError(f"no built-in case matches {pattern!r}", remedy="see minitl oracle list")
    return entries


def _attrs_text(attrs: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={str(value).lower()}" for name, value in attrs.items())


def _export(args: argparse.Namespace) -> int:
    written = []
    for case in _cases(args):
        folder = args.folder / case.name
        oracle.save(case, folder)
        if args.format == "c":
            from minitl.oracle.c_header import write_header

            write_header(case, folder / f"{case.name}.h")
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        written.append({"case": case.name, "folder": str(folder), "bytes": size})
    if args.json:
        options.print_json("oracle", {"exported": written})
    else:
        total = sum(entry["bytes"] for entry in written)
        print(f"wrote {len(written)} case{'s' * (len(written) != 1)}, {total / 1e6:.2f} MB, to {args.folder}")
    return 0


def _cases(args: argparse.Namespace) -> Iterator[oracle.Case]:
    own = {name: getattr(args, name) for name in ("method", "batch", "height", "width", "seed")}
    own = {name: value for name, value in own.items() if value is not None}
    if args.op is None:
        if own or args.attr:
            raise ValueRangeError("--attr, --method, --batch, --height, --width and --seed need --op")
        for entry in _entries(args.pattern or "*"):
            yield entry.case(args.layout, args.dtype)
        return
    if args.pattern:
        raise ValueRangeError("a pattern of built-in cases and --op exclude each other")
    attrs = dict(parse_attr(args.op, pair) for pair in args.attr)
    yield oracle.make(args.op, attrs=attrs, dtype=args.dtype, layout=args.layout, **own)


def _check(args: argparse.Namespace) -> int:
    reports = []
    for folder, got in _pairs(args.ref, args.got):
        reports.append(oracle.load(folder).compare(read_got(got), args.only))
    ok = all(report.ok for report in reports)
    if args.json:
        options.print_json("oracle", {"ok": ok, "cases": [report.to_json() for report in reports]})
    else:
        for report in reports:
            print(report)
        right = sum(report.ok for report in reports)
        print(f"{right} of {len(reports)} cases right" + ("" if ok else f", {len(reports) - right} wrong"))
    return int(not ok)


def _pairs(ref: Path, got: Path) -> list[tuple[Path, Path]]:
    """Folders of the cases, each with the folder of what was computed."""
    if not ref.is_dir() or not got.is_dir():
        raise CaseError(f"{got if ref.is_dir() else ref}: no such folder")
    if (ref / JSON).is_file():
        within = got / ref.resolve().name
        return [(ref, within if within.is_dir() else got)]
    folders = sorted(path for path in ref.iterdir() if (path / JSON).exists() or (path / TENSORS).exists())
    if not folders:
        raise CaseError(f"{ref}: holds no case", remedy="write some with minitl oracle export")
    return [(folder, got / folder.name) for folder in folders]


def _spec(args: argparse.Namespace) -> int:
    path = resources.files("minitl.oracle") / "spec.md"
    if not path.is_file():
        raise CaseError("the specification is not installed")
    text = path.read_text("utf-8")
    print(json.dumps({"schema": oracle.SCHEMA, "spec": text}) if args.json else text, end="\n" * args.json)
    return 0
