"""`minitl bench`: steps timed beside PyTorch's."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from minitl.bench import cold, machine, report, rivals, scale
from minitl.bench.cases import Case, select
from minitl.bench.compare import Result, compare, geometric_means
from minitl.errors import ValueRangeError
from minitl.kernels.heap import keep_freed_memory
from minitl.training.progress import bar
from minitl.verbs import options
from minitl.verbs.terminal import show

HELP = "time and memory of training steps, beside PyTorch's where it is installed"
DESCRIPTION = """Times forward and backward (batch 8, float32) of blocks and networks in minitl and in PyTorch by
turns, and measures by how much each process grows. A ratio is minitl's median over that of PyTorch's fastest
variant."""
EXAMPLES = """
minitl bench
minitl bench --cases irb --seconds 5 --no-peak
minitl bench --scale
"""
NOTE = """Times are medians of a step, forward and backward. to 1 thread: how many times as fast as on one. roof %: the
share of the roof that its multiply-adds reach. gemm ms: the bare matrix products of its pointwise convolutions
and linear layers. MB (1e6 bytes): by how much a process of its own grew over a step, weights and
images being there before; as minitl foresees it; of PyTorch's own modules; and of PyTorch's fastest variant."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    parser.add_argument("--cases", default="all", metavar="WHICH", help="irb, networks, all or a glob")
    parser.add_argument(
        "--seconds", type=float, default=15.0, metavar="S", help="seconds of timing per case; with 0 a few steps"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads on both sides")
    parser.add_argument("--no-peak", action="store_true", help="leave out the peak memory")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--scale", action="store_true", help="instead: a network over batch sizes and resolutions")
    other.add_argument("--compile", action="store_true", help="instead: what a first step costs")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if not 0 <= args.seconds < float("inf"):
        raise ValueRangeError(op="bench", expected="--seconds of at least 0", got=f"{args.seconds:g}")
    cases = select(args.cases)
    keep_freed_memory()  # PyTorch's processes do so too
    about = machine.describe(args.threads)
    if args.compile:
        _compile(args, about)
    elif args.scale:
        _scale(args, about)
    else:
        _compare(args, about, cases)
    return 0


def _show(args: argparse.Namespace, about: dict[str, Any], found: dict[str, Any], parts: list[str]) -> None:
    if args.json:
        options.print_json("bench", {"machine": about, **found})
    else:
        show(machine.text(about), *parts)


def _compare(args: argparse.Namespace, about: dict[str, Any], cases: list[Case]) -> None:
    found: list[Result] = []
    try:
        with bar("bench", len(cases)) as shown:
            if not rivals.installed():
                shown.say(rivals.REMEDY)
            for more in compare(cases, seconds=args.seconds, count=args.threads, peak=not args.no_peak, shown=shown):
                found += more
    finally:  # an error or Ctrl-C takes nothing away that is known
        if found:
            blocks = {case.name for case in cases if case.network == "irb"}
            means = geometric_means([result for result in found if result.case in blocks])
            data = {"results": [asdict(result) for result in found], "geometric_means": means}
            roof = about["roof_gflops"][str(args.threads)]
            _show(args, about, data, [*report.results_tables(found, means, roof), NOTE])


def _scale(args: argparse.Namespace, about: dict[str, Any]) -> None:
    cases = scale.sizes()
    found: list[scale.Size] = []
    try:
        with bar("bench", len(cases)) as shown:
            peak = not args.no_peak
            for size in scale.scale(cases, seconds=args.seconds, count=args.threads, peak=peak, shown=shown):
                found.append(size)
    finally:
        if found:
            data = {"results": [], "scale": [asdict(size) for size in found]}
            _show(args, about, data, report.sizes_tables(found))


def _compile(args: argparse.Namespace, about: dict[str, Any]) -> None:
    importing = cold.import_seconds()
    found: list[cold.First] = []
    try:
        with bar("bench", len(cold.firsts())) as shown:
            for first in cold.compile_times(shown):
                found.append(first)
    finally:
        if found:
            data = {"results": [], "import_s": importing, "compile": [asdict(first) for first in found]}
            _show(args, about, data, report.firsts_tables(found, importing))
