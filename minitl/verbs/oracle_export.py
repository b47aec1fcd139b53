"""`minitl oracle export`: cases as files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from minitl import oracle
from minitl.errors import ValueRangeError
from minitl.oracle.c_header import write_header, write_table
from minitl.oracle.recipes import ATTRS, NETWORK_METHODS, parse_attr
from minitl.verbs import options
from minitl.verbs.oracle_cases import attrs_text, entries, told_if_slow

DESCRIPTION = """Writes cases as files: the built-in ones that PATTERN names, or with --op and no PATTERN one of your
own. A case is a folder with case.json (what is to be computed) and tensors.safetensors (inputs, expected results and
bounds of their errors)."""
EPILOG = """\
examples:
  minitl oracle export ref                               # every built-in case
  minitl oracle export ref 'irb-mobiletl-*'              # some of them
  minitl oracle export ref --format c 'depthwise_conv*'  # with C headers, a table of the cases, and check.c
  minitl oracle export ref 'conv*' --batch 1 --height 14 --width 14 --layout nchw --weights hwio
  minitl oracle export ref --op conv --attr padding=same --attr stride=2 --attr bias=true
  minitl oracle export ref --op depthwise_conv --attr kernel=5 --attr stride=2 --batch 1 --height 14 --width 14

--attr and its defaults, by op:
""" + "".join(f"  {op:<18}{attrs_text(attrs)}\n" for op, attrs in ATTRS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `oracle export`."""
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


def run(args: argparse.Namespace) -> int:
    """Write the cases asked for."""
    with told_if_slow(args):
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
        for entry in entries(args):
            yield entry.case(**form, **size)
        return
    own = {name: value for name in ("method", "seed") if (value := getattr(args, name)) is not None}
    attrs = dict(parse_attr(args.op, pair) for pair in args.attr)
    yield oracle.make(args.op, attrs=attrs, **form, **size, **own)
