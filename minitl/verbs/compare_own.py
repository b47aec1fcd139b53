"""`minitl compare --data`: methods compared on one's own network, weights and images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from minitl.accounting.plot import plot_kept
from minitl.checks import expect_count
from minitl.errors import UsageError, ValueRangeError
from minitl.training.choice import Choice
from minitl.training.cluster import spread_over
from minitl.training.plots import plot_accuracy
from minitl.training.progress import bar
from minitl.training.recipe import Recipe
from minitl.training.search import MOST_SEEDS, Result, Spread
from minitl.training.store import Store
from minitl.training.trials import RATES, OwnComparison
from minitl.training.workers import count, spread
from minitl.verbs import recipe_options, trained
from minitl.verbs.recipe_options import OF_NETWORK, OF_PREPROCESSING, OF_SETTINGS

CHOICES = tuple(map(Choice, ("ft-last", "ft-bias", "ft-norm", "ft-blocks", "mobiletl", "mobiletl-exact", "ft-all")))
GIVEN = (*OF_NETWORK, *OF_PREPROCESSING, *OF_SETTINGS, "images", "scheduler")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options for one's own data."""
    group = parser.add_argument_group(
        "your own network and images",
        "For each method and seed, the best learning rate is found on a part of the training images; "
        "accuracy is of the images that the seed holds out.",
    )
    group.add_argument("--data", type=Path, metavar="DATA", help="as in train: a folder per class, .npz, CIFAR, IDX")
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


def compare(args: argparse.Namespace, choices: Sequence[Choice] | None, plots: list[Path]) -> list[Result]:
    """Compare; add to `plots` those that are drawn in `--plots`."""
    recipe, path = replace(recipe_options.recipe_of(args), apply=args.apply), args.data
    if args.scheduler:  # its workers may have been started in another folder
        recipe, path = _from_anywhere(recipe), path.absolute()
    rates, seeds = rates_of(args, RATES), expect_count("seeds", args.seeds, most=MOST_SEEDS, op="compare")
    comparison = OwnComparison(choices or _default_choices(recipe), seeds, rates, path=path, recipe=recipe)
    accounts = {choice: comparison.account(choice) for choice in comparison.choices}  # or a method does not fit
    recipe_options.check_images(comparison.images)
    store = Store(args.out, comparison.about(), resume=bool(args.resume))
    with store.told(), bar("compare", len(comparison.left(store.outcomes))) as shown:
        for outcome in comparison.run(_spread(args), store.outcomes, shown):
            store.add(outcome)
    found = comparison.results(accounts, store.outcomes)
    if args.plots:
        title = next(iter(accounts.values())).title
        plot_accuracy(found, args.plots / "accuracy.png", title)
        held = {str(choice): account.ledger for choice, account in accounts.items()}
        plot_kept(held, args.plots / "memory.png", title=title)
        plots += [args.plots / "accuracy.png", args.plots / "memory.png"]
    return found


def _from_anywhere(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths."""
    network = recipe.network
    if network and network.endswith(".toml"):
        network = str(Path(network).absolute())
    return replace(recipe, network=network, weights=recipe.weights and recipe.weights.absolute())


def _default_choices(recipe: Recipe) -> Sequence[Choice]:
    """The usual methods; of a model of minitl's first its own, as it was trained."""
    own = [trained.choice_of(file)] if (file := recipe.model) else []
    return [*own, *(choice for choice in CHOICES if choice.method not in {one.method for one in own})]


def rates_of(args: argparse.Namespace, usual: Sequence[float]) -> Sequence[float]:
    """The learning rates to try, `usual` where none are given; none, for each method's default. Raises."""
    if args.learning_rates is None:
        return usual
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


def _spread(args: argparse.Namespace) -> Spread:
    """Over a cluster, or over processes of this machine."""
    if args.scheduler:
        return partial(spread_over, args.scheduler)
    return partial(spread, workers=count(args.workers))
