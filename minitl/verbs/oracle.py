"""`minitl oracle`: cases for somebody else's implementation, and the check of what it computed."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from threading import Timer
from typing import Any

from minitl import oracle
from minitl.accounting.table import Table, table
from minitl.errors import ValueRangeError
from minitl.files import write_whole
from minitl.oracle.answers import WHOLE, nothing_found, reader
from minitl.oracle.c_header import write_header, write_table
from minitl.oracle.junit import junit
from minitl.oracle.recipes import ATTRS, BLOCKS, NETWORK_METHODS, parse_attr
from minitl.oracle.store import JSON, TENSORS, CaseError
from minitl.verbs import options
from minitl.verbs.terminal import show

SLOW = 2.0  # seconds
AT_WORK = "at work; kernels are compiled once, which takes some seconds"
HELP = "cases to check another implementation with"
DESCRIPTION = """Writes cases (inputs, true results, and how far off a correct result may be) and checks what another
implementation computed from them. `minitl oracle spec` prints what is to be implemented."""
EXAMPLES = """
minitl oracle list 'irb-*'
minitl oracle export vectors
minitl oracle check vectors results
minitl oracle spec
"""
EXPORT_EXAMPLES = """\
examples:
  minitl oracle export ref                               # every built-in case
  minitl oracle export ref 'irb-mobiletl-*'              # some of them
  minitl oracle export ref --format c 'depthwise_conv*'  # with C headers, a table of the cases, and check.c
  minitl oracle export ref 'conv*' --batch 1 --height 14 --width 14 --layout nchw --weights hwio
  minitl oracle export ref --op conv --attr padding=same --attr stride=2 --attr bias=true
  minitl oracle export ref --op depthwise_conv --attr kernel=5 --attr stride=2 --batch 1 --height 14 --width 14
"""
CHECK_EXAMPLES = """\
GOT holds a folder per case with tensors.safetensors, one .npz, or TENSOR.npy
or raw little-endian TENSOR.bin files, or a file CASE.npz or CASE.safetensors;
or it is the folder or the file of one case; or the output of a C program that
check.c was compiled into with -DMINITL_ANSWERS.

examples:
  minitl oracle check ref answers                # those with an answer; the rest is listed as missing
  minitl oracle check ref answers --require-all  # a missing answer fails, as a CI wants it
  minitl oracle check ref answers 'irb-*' --method mobiletl --only forward
  minitl oracle check ref serial.log             # what a board printed

exit codes: 0 all that was judged is right; 1 something is wrong, or one of
several answers cannot be read; 2 nothing could be judged, or a case cannot be
read
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `oracle`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the built-in cases")
    listing.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as irb-mobiletl-* (default: all)")
    listing.add_argument("--op", metavar="OP", help="only cases of this op")
    listing.add_argument("--method", metavar="NAME", help="only cases of this method")
    export = _action(actions, "export", "write cases, built-in ones or one of your own", EXPORT_EXAMPLES + _defaults())
    _add_export(export)
    check = _action(actions, "check", "compare what was computed with the cases", CHECK_EXAMPLES)
    _add_check(check)
    spec = actions.add_parser("spec", help="the written specification")
    for action in (listing, check, spec, export):
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _action(actions: Any, name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    """An action whose help ends in preformatted text."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, epilog=epilog)
    return parser


def _defaults() -> str:
    """Every op's attributes with their defaults, for the help text."""
    lines = [f"  {op:<18}{_attrs_text(attrs)}" for op, attrs in ATTRS.items()]
    return "\n".join(["", "--attr and its defaults, by op:", *lines, ""])


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; each case gets a folder of its own")
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="of built-in cases (default: all)")
    parser.add_argument(
        "--op",
        metavar="OP",
        help=f"a case of your own, of {', '.join(ATTRS)}; with a PATTERN, only built-in cases of this op",
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        help=f"of an irb or a network: {', '.join(NETWORK_METHODS)} (default: ft); ft-all of a network alone; "
        "with a PATTERN, only built-in cases of this method",
    )
    parser.add_argument(
        "--attr", action="append", default=[], metavar="NAME=VALUE", help="as kernel=5; defaults are listed below"
    )
    for name, default in (("batch", 2), ("height", 5), ("width", 5)):
        text = f"of a case of your own (default: {default}), or instead of the built-in one"
        parser.add_argument(f"--{name}", type=int, metavar=name[0].upper(), help=text)
    parser.add_argument("--seed", type=int, metavar="S", help="of a case of your own (default: 0)")
    parser.add_argument("--dtype", default="float32", help="of inputs and parameters: float32 (default) or float64")
    parser.add_argument("--layout", default="nhwc", help="nhwc (default) or nchw")
    parser.add_argument("--weights", default="oihw", help="oihw (default), ohwi or hwio: order of a weight's axes")
    parser.add_argument("--format", choices=("safetensors", "c"), default="safetensors", help="c adds a header")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", type=Path, metavar="REF", help="a folder of cases, or one case's folder")
    parser.add_argument("got", type=Path, metavar="GOT", help="a folder per case with the answer, or a C program's log")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="only cases so named (default: all)")
    parser.add_argument("--only", choices=("forward",), help="leave gradients out")
    parser.add_argument("--op", metavar="OP", help="only cases of this op")
    parser.add_argument("--method", metavar="NAME", help="only cases of this method")
    parser.add_argument("--require-all", action="store_true", help="a case without an answer fails")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the verdicts as JUnit XML too")


def run(args: argparse.Namespace) -> int:
    """Run one action; 1 if a check fails."""
    code: int = {"list": _list, "export": _export, "check": _check, "spec": _spec}[args.action](args)
    return code


def _list(args: argparse.Namespace) -> int:
    entries = _entries(args)
    rows = [{"case": e.name, "op": e.op, "method": _method(e), "attrs": e.attrs, "input": e.size} for e in entries]
    if args.json:
        options.print_json("oracle", {"cases": rows})
    else:
        body = [(e.name, e.op, "x".join(map(str, e.size)), _attrs_text(e.attrs)) for e in entries]
        show(table(("case", "op", "N x H x W", "attributes"), body, optional=("attributes", "op")))
    return 0


def _entries(args: argparse.Namespace) -> list[oracle.Entry]:
    """Built-in cases by pattern, op and method."""
    entries = [
        entry
        for entry in oracle.entries(args.pattern or "*")
        if args.op in (None, entry.op) and args.method in (None, _method(entry))
    ]
    if not entries:
        raise CaseError("no built-in case matches PATTERN, --op and --method together", remedy="see minitl oracle list")
    return entries


def _method(entry: oracle.Entry) -> str:
    return entry.method if entry.op in BLOCKS else ""


def _attrs_text(attrs: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={str(value).lower() if value != '' else '(the first)'}" for name, value in attrs.items())


def _export(args: argparse.Namespace) -> int:
    with _told_if_slow(args):
        written, cases = [], list(_cases(args))
    for case in cases:
        folder = args.folder / case.name
        oracle.save(case, folder)
        if args.format == "c":
            write_header(case, folder / f"{case.name}.h")
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        written.append({"case": case.name, "folder": str(folder), "bytes": size})
    if args.format == "c":
        write_table(cases, args.folder)
    if args.json:
        options.print_json("oracle", {"exported": written})
    else:
        total = sum(entry["bytes"] for entry in written)
        print(f"wrote {len(written)} case{'s' * (len(written) != 1)}, {total / 1e6:.2f} MB, to {args.folder}")
    return 0


def _cases(args: argparse.Namespace) -> Iterator[oracle.Case]:
    size = {name: value for name in ("batch", "height", "width") if (value := getattr(args, name)) is not None}
    form = {"layout": args.layout, "dtype": args.dtype, "weights": args.weights}
    if args.pattern or args.op is None:
        if args.attr or args.seed is not None:
            raise ValueRangeError("--attr and --seed are of a case of your own: they need --op, and no PATTERN")
        if (size or args.method) and not args.pattern:
            needing = "--batch, --height, --width and --method"
            raise ValueRangeError(f"{needing} need --op or a PATTERN", remedy="'*' is all cases")
        for entry in _entries(args):
            yield entry.case(**form, **size)
        return
    own = {name: value for name in ("method", "seed") if (value := getattr(args, name)) is not None}
    attrs = dict(parse_attr(args.op, pair) for pair in args.attr)
    yield oracle.make(args.op, attrs=attrs, **form, **size, **own)


@dataclass(eq=False)
class _Checked:
    """The verdicts: reports of the cases that were answered, and the others' names; and each case's kind."""

    reports: list[oracle.Report] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)  # op, and method of an irb
    told: int = 0  # how many of the reports

    def tell(self, say: Callable[[oracle.Report], None]) -> None:
        """Say the reports that have not been said."""
        for report in self.reports[self.told :]:
            say(report)
        self.told = len(self.reports)

    def failed(self, require_all: bool) -> bool:
        return any(not report.ok for report in self.reports) or (require_all and bool(self.missing))


def _check(args: argparse.Namespace) -> int:
    if args.junit:
        options.check_named(args.junit, ".xml")
    with _told_if_slow(args):
        checked = _judge(args, _print_nothing if args.json else _print_now)
    failed = checked.failed(args.require_all)
    if args.junit:
        write_whole(args.junit, junit(checked.reports, checked.missing, require_all=args.require_all))
    if args.json:
        cases = [report.to_json() for report in checked.reports]
        options.print_json("oracle", {"ok": not failed, "cases": cases, "missing": checked.missing})
    else:
        for name in checked.missing:
            print(f"{name}: missing, no answer")
        print()
        show(_summary(checked), _verdict(checked))
    return int(failed)


def _judge(args: argparse.Namespace, say: Callable[[oracle.Report], None]) -> _Checked:
    """Judge every case that has an answer, one that cannot be read being wrong.

    A report is said as soon as it is made; but nothing before all cases and some answer have been read.
    """
    checked, unreadable = _Checked(), []
    answer = reader(args.got)
    cases = [(case, name) for case, name in _loaded(args.ref, args.got) if _asked_for(case, args)]
    for case, name in cases:
        checked.kinds[case.name] = f"{case.op} {case.method}".strip()
        try:
            got = answer(case, name)
        except CaseError as error:
            unreadable.append(error)
            report = oracle.Report(case.name, (oracle.Line("answer", False, f"unreadable: {error}"),))
        else:
            if got is None:
                checked.missing.append(case.name)
                continue
            report = case.compare(got, args.only)
        checked.reports.append(report)
        if len(unreadable) < len(checked.reports):
            checked.tell(say)
    if not checked.kinds:
        raise CaseError(f"{args.ref}: no case matches", remedy="leave PATTERN, --op and --method out")
    if unreadable and len(unreadable) == len(checked.reports):
        raise unreadable[0]
    if not checked.reports:
        raise nothing_found(args.got, checked.missing)
    return checked


def _loaded(ref: Path, got: Path) -> Iterator[tuple[oracle.Case, str]]:
    return ((oracle.load(folder), name) for folder, name in _folders(ref, got))


def _asked_for(case: oracle.Case, args: argparse.Namespace) -> bool:
    named = fnmatchcase(case.name, args.pattern)
    return named and args.op in (None, case.op) and args.method in (None, case.method)


def _print_now(report: oracle.Report) -> None:
    show(str(report))
    sys.stdout.flush()


def _print_nothing(report: oracle.Report) -> None:
    pass


@contextmanager
def _told_if_slow(args: argparse.Namespace) -> Iterator[None]:
    """A line on stderr for who waits, at a terminal or behind a pipe; programs, which ask for JSON, need none."""
    timer = Timer(SLOW, print, (AT_WORK,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    if not args.json:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _folders(ref: Path, got: Path) -> Sequence[tuple[Path, str]]:
    """Folders of the cases, each with the name of its answer's folder in `got`."""
    if not ref.is_dir():
        raise CaseError(f"{ref}: no such folder")
    if (ref / JSON).is_file():
        name = ref.resolve().name
        own = (got / name).is_dir() or any((got / f"{name}{suffix}").is_file() for suffix in WHOLE)
        return [(ref, name if own else ".")]
    folders = sorted(path for path in ref.iterdir() if (path / JSON).exists() or (path / TENSORS).exists())
    if not folders:
        raise CaseError(f"{ref}: holds no case", remedy="write some with minitl oracle export")
    return [(folder, folder.name) for folder in folders]


def _summary(checked: _Checked) -> Table:
    """A table of passes, failures and missing answers by op."""
    right, wrong, missing = (
        Counter(checked.kinds[name] for name in names)
        for names in (
            [report.case for report in checked.reports if report.ok],
            [report.case for report in checked.reports if not report.ok],
            checked.missing,
        )
    )
    rows = [(kind, right[kind], wrong[kind], missing[kind]) for kind in dict.fromkeys(checked.kinds.values())]
    return table(("op", "right", "wrong", "missing"), rows, right=(1, 2, 3))


def _verdict(checked: _Checked) -> str:
    right, total = sum(report.ok for report in checked.reports), len(checked.kinds)
    wrong = len(checked.reports) - right
    parts = [f"{right} of {total} cases right", *([f"{wrong} wrong"] if wrong else [])]
    return ", ".join([*parts, *([f"{len(checked.missing)} missing"] if checked.missing else [])])


def _spec(args: argparse.Namespace) -> int:
    path = resources.files("minitl.oracle") / "spec.md"
    if not path.is_file():
        raise CaseError("the specification is not installed")
    text = path.read_text("utf-8")
    print(json.dumps({"schema": oracle.SCHEMA, "spec": text}) if args.json else text, end="\n" * args.json)
    return 0
