"""`minitl compare --data`: methods compared on one's own network, weights and images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from minitl import data
from minitl.accounting.plot import plot_kept
from minitl.checks import expect_count
from minitl.data.source import Source
from minitl.errors import DataError, UsageError, ValueRangeError
from minitl.files import check_writable, read_bytes, write_whole
from minitl.training.choice import Choice
from minitl.training.cluster import spread_over
from minitl.training.plots import plot_accuracy
from minitl.training.progress import bar
from minitl.training.trials import RATES, Comparison, Outcome, OwnResult, account, results, run
from minitl.training.workers import default_workers, spread
from minitl.verbs import recipe_options
from minitl.verbs.recipe_options import OF_NETWORK, OF_PREPROCESSING, OF_SETTINGS

CHOICES = tuple(map(Choice, ("ft-last", "ft-bias", "ft-norm", "ft-blocks", "mobiletl", "mobiletl-exact", "ft-all")))
GIVEN = (*OF_NETWORK, *OF_PREPROCESSING, *OF_SETTINGS, "learning_rates", "scheduler", "out", "resume")
SCHEMA = "minitl-trials/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options for one's own data."""
    group = parser.add_argument_group(
        "your own network and images",
        "For each method and seed, the best learning rate of a list is found on a part of the training images; "
        "accuracy is of the images that the seed holds out.",
    )
    group.add_argument("--data", type=Path, metavar="DATA", help="as in train: a folder per class, .npz, CIFAR, IDX")
    group.add_argument("--learning-rates", metavar="LIST", help="those tried; one is not searched, but taken; "
                       "`default` is each method's own, as in train "
                       f"(default: {','.join(f'{rate:g}' for rate in RATES)})")  # fmt: skip
    group.add_argument("--out", type=Path, metavar="FILE.json", help="keep every trial's outcome there, as it comes")
    group.add_argument("--resume", action="store_true", default=None, help="do not repeat the trials in --out")
    group.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="spread the trials over a Dask cluster, whose "
                       "workers have minitl and see the same files")  # fmt: skip
    for add, title in (
        (recipe_options.add_network, "its network"),
        (recipe_options.add_images, "its images"),
        (recipe_options.add_training, "its training"),
    ):
        add(parser.add_argument_group(title, "as in train"))


def check_unused(args: argparse.Namespace) -> None:
    """Raise UsageError where an option for one's own data was given without them."""
    for name in GIVEN:
        if getattr(args, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for a comparison on --data", remedy="give --data too")


def compare(args: argparse.Namespace, choices: Sequence[Choice] | None, plots: list[Path]) -> list[OwnResult]:
    """Compare; add to `plots` those that are drawn in `--plots`."""
    recipe = replace(recipe_options.recipe_of(args), apply=args.apply)
    images, choices = data.load(args.data), CHOICES if choices is None else choices
    comparison = Comparison(args.data, recipe, choices, expect_count("seeds", args.seeds, op="compare"), _rates(args))
    accounts = {str(choice): account(comparison, choice, images) for choice in choices}  # or a method does not fit
    store = _Store(args, comparison, images)
    jobs = len(comparison.searches()) + len(choices) * args.seeds
    with bar("compare", jobs) as shown:
        for outcome in run(comparison, _spread(args), store.outcomes.copy(), shown):
            store.add(outcome)
    found = results(comparison, images, store.outcomes)
    if args.plots:
        title = next(iter(accounts.values())).title
        plot_accuracy(found, args.plots / "accuracy.png", title)
        plot_kept({name: held.ledger for name, held in accounts.items()}, args.plots / "memory.png", title=title)
        plots += [args.plots / "accuracy.png", args.plots / "memory.png"]
    return found


class _Store:
    """The outcomes so far, in memory and in `--out`."""

    def __init__(self, args: argparse.Namespace, comparison: Comparison, images: Source) -> None:
        self.path: Path | None = args.out
        self.about, self.outcomes = comparison.about(images), list[Outcome]()
        if args.resume and not self.path:
            raise UsageError("--resume needs --out", remedy="say which file the trials are in")
        if self.path:
            check_writable(self.path)
            if args.resume and self.path.exists():
                self.outcomes = self._read(self.path)

    def add(self, outcome: Outcome) -> None:
        """Keep one more."""
        self.outcomes.append(outcome)
        if self.path:
            stored = {"schema": SCHEMA, "about": self.about, "trials": [o.to_json() for o in self.outcomes]}
            write_whole(self.path, (json.dumps(stored, indent=1, sort_keys=True) + "\n").encode())

    def _read(self, path: Path) -> list[Outcome]:
        try:
            stored = json.loads(read_bytes(path))
            if stored["schema"] != SCHEMA:
                raise ValueError("another schema")
            about, outcomes = stored["about"], [Outcome.from_json(trial) for trial in stored["trials"]]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"holds no trials of a comparison: {told}", layer=str(path)) from None
        other = [name for name in self.about if about.get(name) != json.loads(json.dumps(self.about[name]))]
        if other:
            raise UsageError(f"was begun with other {other[0]}", layer=str(path), remedy="give another --out")
        return outcomes


def _rates(args: argparse.Namespace) -> Sequence[float]:
    if args.learning_rates is None:
        return RATES
    if args.learning_rates == "default":
        return ()
    try:
        rates = [float(text) for text in args.learning_rates.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < 1e6 for rate in rates):
        got = repr(args.learning_rates)[:80]
        raise ValueRangeError(expected="--learning-rates like 0.001,0.003,0.01, or default", got=got)
    return sorted(set(rates))


def _spread(args: argparse.Namespace) -> Callable[..., Generator[Outcome]]:
    """Over a cluster, or over processes of this machine."""
    if args.scheduler:
        return partial(spread_over, args.scheduler)
    workers = default_workers() if args.workers is None else expect_count("workers", args.workers, op="compare")

    def local(function: Callable[..., Outcome], jobs: Iterable[tuple[Any, ...]]) -> Generator[Outcome]:
        return spread(function, jobs, workers)

    return local
