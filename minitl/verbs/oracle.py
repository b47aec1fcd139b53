"""`minitl oracle`: cases for somebody else's implementation, and the check of what it computed."""

from __future__ import annotations

import argparse
import json
from importlib import resources

from minitl import oracle
from minitl.accounting.table import table
from minitl.oracle.store import CaseError
from minitl.verbs import options, oracle_check, oracle_export
from minitl.verbs.oracle_cases import attrs_text, entries, method_of
from minitl.verbs.terminal import show

HELP = "cases to check another implementation with"
DESCRIPTION = """Writes cases (inputs, true results, and how far off a correct result may be) and checks what another
implementation computed from them. `minitl oracle spec` prints what is to be implemented."""
EXAMPLES = """
minitl oracle list 'irb-*'
minitl oracle export vectors
minitl oracle check vectors results
minitl oracle spec
"""
LIST = """Lists the built-in cases: the op of each, the shape of its input, and its attributes."""
LIST_EXAMPLES = """
minitl oracle list
minitl oracle list 'irb-*' --method mobiletl
minitl oracle list --op hard_swish
"""
SPEC = """Prints what is to be implemented: every op's formulas, layouts, the packing of masks, the slopes at kinks, and
the tensors that a case holds and asks for. It is enough to implement from, without reading minitl's code."""
SPEC_EXAMPLES = """
minitl oracle spec > spec.md
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `oracle`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the built-in cases", description=LIST, examples=LIST_EXAMPLES)
    listing.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as irb-mobiletl-* (default: all)")
    listing.add_argument("--op", metavar="OP", help="only cases of this op")
    listing.add_argument("--method", metavar="NAME", help="only cases of this method")
    export = actions.add_parser(
        "export",
        help="write cases, built-in ones or one of your own",
        description=oracle_export.DESCRIPTION,
        epilog=oracle_export.EPILOG,
    )
    oracle_export.add_arguments(export)
    check = actions.add_parser(
        "check",
        help="compare what was computed with the cases",
        description=oracle_check.DESCRIPTION,
        epilog=oracle_check.EPILOG,
    )
    oracle_check.add_arguments(check)
    spec = actions.add_parser("spec", help="the written specification", description=SPEC, examples=SPEC_EXAMPLES)
    for action in (listing, check, spec, export):
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Run one action; 1 if a check fails."""
    code: int = {"list": _list, "export": oracle_export.run, "check": oracle_check.run, "spec": _spec}[args.action](
        args
    )
    return code


def _list(args: argparse.Namespace) -> int:
    found = entries(args)
    rows = [{"case": e.name, "op": e.op, "method": method_of(e), "attrs": e.attrs, "input": e.size} for e in found]
    if args.json:
        options.print_json("oracle", {"cases": rows})
    else:
        body = [(e.name, e.op, "x".join(map(str, e.size)), attrs_text(e.attrs)) for e in found]
        show(table(("case", "op", "N x H x W", "attributes"), body, optional=("attributes", "op")))
    return 0


def _spec(args: argparse.Namespace) -> int:
    path = resources.files("minitl.oracle") / "spec.md"
    if not path.is_file():
        raise CaseError("the specification is not installed")
    text = path.read_text("utf-8")
    print(json.dumps({"schema": oracle.SCHEMA, "spec": text}) if args.json else text, end="\n" * args.json)
    return 0
