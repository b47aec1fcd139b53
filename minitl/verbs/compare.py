"""`minitl compare`: the main job, on real images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from minitl.accounting.plot import check as check_plot
from minitl.accounting.plot import new_figure
from minitl.accounting.table import table
from minitl.errors import UsageError
from minitl.training.adapt import Task
from minitl.training.choice import CHOICES, Choice, everything
from minitl.training.compare import RATES, comparing
from minitl.training.plots import pareto, plot_accuracy, plot_memory, plot_pareto
from minitl.training.search import Result
from minitl.training.trials import RATES as OWN_RATES
from minitl.verbs import compare_own, options
from minitl.verbs.terminal import show

PLOTS: dict[str, Callable[[Sequence[Result], Path], None]] = {"accuracy.png": plot_accuracy, "memory.png": plot_memory}

HELP = "the main job: adapt a network to new images with each method; accuracy against memory"
DESCRIPTION = """Pretrains digits_irb on handwritten digits 0 to 4, then adapts it to digits 5 to 9 from 200 labelled
images, once with each method and seed. Prints accuracy, memory and work of each method, and plots them."""
EXAMPLES = """
minitl compare
minitl compare --methods ft-all,mobiletl:2 --seeds 5 --plots plots
minitl compare --pareto --seeds 5 --out pareto.json --resume
minitl compare --methods mobiletl:2+int8,mobiletl:2+hard_swish=few2
minitl compare --data photos --weights photos.safetensors --methods ft-last,mobiletl:3 --out trials.json --resume
"""
DISCLAIMER = """1,797 images of 8x8 pixels (UCI handwritten digits), enlarged to 24x24; a small network; 5 classes. This
shows what the methods keep, and that they learn; it is no evidence about CIFAR or ImageNet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    default = ",".join(f"{c.method}:{c.blocks}" if c.blocks else c.method for c in CHOICES)
    parser.add_argument(
        "--methods",
        metavar="LIST",
        help="comma-separated METHOD[:BLOCKS][+int8][+checkpoint][+WHAT=RULE], as mobiletl:2+hard_swish=few2 "
        f"(default: {default})",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds")
    parser.add_argument("--workers", type=int, metavar="N", help="processes to spread the runs over (default: cores)")
    parser.add_argument(
        "--apply", action="store_true", help="apply gradients as they come: the same bytes, less memory"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write accuracy.png and memory.png there")
    parser.add_argument(
        "--pareto", action="store_true", help="all methods, their Pareto sets, and pareto.png in --plots (here: pareto)"
    )
    parser.add_argument(
        "--learning-rates",
        metavar="LIST",
        help="those tried on a part of the training images; one is not searched, but taken; `default` is each method's "
        f"own (default: {_list(RATES)} with --pareto, {_list(OWN_RATES)} with --data, else `default`)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep every trial's outcome there, as it comes")
    parser.add_argument("--resume", action="store_true", help="do not repeat the trials in --out")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    compare_own.add_arguments(parser)


def _list(rates: Sequence[float]) -> str:
    return ",".join(f"{rate:g}" for rate in rates)


def run(args: argparse.Namespace) -> int:
    """Compare, print, plot."""
    choices = None if args.methods is None else [Choice.parse(text) for text in args.methods.split(",")]
    if args.pareto:
        if args.data:
            raise UsageError("--pareto is for the demonstration's images", remedy="with --data, name the --methods")
        args.plots, choices = args.plots or Path("pareto"), choices or list(everything())
    if args.out:
        options.check_named(args.out, ".json")
    if args.plots:
        _prepare(args.plots)
    results: Sequence[Result] = []
    plots: list[Path] = []
    if not args.data:
        compare_own.check_unused(args)
    try:
        if args.data:
            results = compare_own.compare(args, choices, plots)
            return 0
        found = comparing(
            choices or CHOICES,
            seeds=args.seeds,
            rates=compare_own.rates_of(args, RATES if args.pareto else ()),
            task=Task(apply=args.apply),
            workers=args.workers,
            progress=True,
            out=args.out,
            resume=args.resume,
        )
        for results in found:  # noqa: B007
            pass
        if args.plots:
            plots.extend(_plots(results, args.plots, pareto_too=args.pareto))
    finally:  # an error, Ctrl-C or a full disk takes nothing away that is known
        if results:
            _show(args, results, plots)
    return 0


def _prepare(folder: Path) -> None:
    """Find out before the work what would keep its plots from being written."""
    new_figure(1, 1)  # raises without matplotlib
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"plots: cannot make the folder {folder}: {error.strerror}") from None
    for name in PLOTS:
        check_plot(folder / name)


def _plots(results: Sequence[Result], folder: Path, *, pareto_too: bool) -> Iterator[Path]:
    """Draw them, and give each once it is written."""
    for name, plot in (PLOTS | {"pareto.png": plot_pareto} if pareto_too else PLOTS).items():
        plot(results, folder / name)
        yield folder / name


def _show(args: argparse.Namespace, results: Sequence[Result], plots: Sequence[Path]) -> None:
    if args.json:
        options.print_json("compare", {"results": [asdict(r) for r in results], "plots": [str(p) for p in plots]})
    else:
        _print(results, args.data)
        for of in ("kept", "peak") if args.pareto else ():
            front = pareto(results, partial(_weigh, of=f"{of}_bytes"))
            show(f"Pareto set of accuracy and {of} bytes: {', '.join(str(r.choice) for r in front)}")
        for path in plots:
            print(f"wrote {path}")


def _weigh(result: Result, of: str) -> tuple[int, float]:
    """Memory and accuracy."""
    return getattr(result, of), result.percent


def _print(results: Sequence[Result], data: Path | None) -> None:
    body = []
    for r in results:
        spread = f"{r.spread:.1f}" if r.seeds > 1 else "-"
        rates = "-".join(f"{rate:g}" for rate in sorted({min(r.learning_rates), max(r.learning_rates)}))
        memory = (f"{count:,}" for count in (r.kept_bytes, r.peak_bytes, r.total_bytes))
        work = (f"{r.trained_parameters:,}", f"{r.flops / 1e6:,.1f}", f"{r.seconds:.1f}")
        body.append((str(r.choice), f"{r.percent:.1f}", spread, rates, *memory, *work))
    counts = ("kept bytes", "peak bytes", "total bytes", "trains", "MFLOPs a step", "s")
    header = ("method", "accuracy %", "+-", "rate", *counts)
    optional = ("total bytes", "s", "peak bytes", "trains", "rate")
    show(table(header, body, right=range(1, len(header)), optional=optional))
    seeds = " to ".join(map(str, sorted({min(r.seeds for r in results), max(r.seeds for r in results)})))
    print(f"\nseeds: {seeds}; +- is one standard deviation over them.\n{'' if data else DISCLAIMER}".rstrip())
