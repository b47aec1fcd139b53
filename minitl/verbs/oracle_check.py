"""`minitl oracle check`: what was computed against the cases."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from minitl import oracle
from minitl.accounting.table import Table, table
from minitl.files import write_whole
from minitl.oracle.answers import WHOLE, nothing_found, reader
from minitl.oracle.junit import junit
from minitl.oracle.store import JSON, TENSORS, CaseError
from minitl.verbs import options
from minitl.verbs.oracle_cases import told_if_slow
from minitl.verbs.terminal import show

DESCRIPTION = """Compares what an implementation computed with the cases, element by element. One line per case says
whether it is right; of a wrong one, which tensors are wrong, where, by how much, and the likely cause."""
EPILOG = """\
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `oracle check`."""
    parser.add_argument("ref", type=Path, metavar="REF", help="a folder of cases, or one case's folder")
    parser.add_argument("got", type=Path, metavar="GOT", help="a folder per case with the answer, or a C program's log")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="only cases so named (default: all)")
    parser.add_argument("--only", choices=("forward",), help="leave gradients out")
    parser.add_argument("--op", metavar="OP", help="only cases of this op")
    parser.add_argument("--method", metavar="NAME", help="only cases of this method")
    parser.add_argument("--require-all", action="store_true", help="a case without an answer fails")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the verdicts as JUnit XML too")


def run(args: argparse.Namespace) -> int:
    """Judge what was computed; 1 where something is wrong."""
    if args.junit:
        options.check_named(args.junit, ".xml")
    with told_if_slow(args):
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
    loaded = [(oracle.load(folder), name) for folder, name in _folders(args.ref, args.got)]
    cases = [(case, name) for case, name in loaded if _asked_for(case, args)]
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


def _asked_for(case: oracle.Case, args: argparse.Namespace) -> bool:
    named = fnmatchcase(case.name, args.pattern)
    return named and args.op in (None, case.op) and args.method in (None, case.method)


def _print_now(report: oracle.Report) -> None:
    show(str(report))
    sys.stdout.flush()


def _print_nothing(report: oracle.Report) -> None:
    pass


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
