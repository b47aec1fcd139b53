"""Methods compared on one's own network, weights and images.

For every method and seed a learning rate is searched, and then judged, on different images: the
seed holds out a part of the images to test on (unless the data have one of their own); of the
others it holds out a part again, on which each rate of one list is tried. So every method gets its
rate in the same way, and none has seen the images it is judged by.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minitl import data, networks
from minitl.accounting import predict
from minitl.data.source import Source
from minitl.data.split import draw
from minitl.files import read_bytes
from minitl.training.choice import Choice
from minitl.training.recipe import Recipe
from minitl.training.search import Account, Comparison, Outcome, Trial

RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
WARM: set[Choice] = set()  # what has been compiled in this process


@dataclass(frozen=True)
class OwnComparison(Comparison):
    """What is compared, on the images at `path`."""

    path: Path = field(kw_only=True)
    recipe: Recipe = field(kw_only=True)

    @cached_property
    def images(self) -> Source:
        """The images, which are read when they are used."""
        return data.load(self.path)

    def default_rate(self, choice: Choice) -> float:
        """As in `train`."""
        return self.recipe.settings_for(choice.method).learning_rate

    def job(self, trial: Trial) -> tuple[Any, ...]:
        """All from the files on disk."""
        return attempt, self.path, self.recipe, trial

    def about(self) -> dict[str, Any]:
        """What decides the outcomes of its trials: they can be taken up again where this is the same."""
        weights = self.recipe.weights
        return {
            "data": self.images.digest,
            "network": _network(self.recipe.network),
            "weights": hashlib.sha256(read_bytes(weights)).hexdigest() if weights else None,
            "source": self.recipe.source,
            "width": self.recipe.width,
            "strict": None if self.recipe.strict else False,  # None as in files of before there was a choice
            "momentum": self.recipe.momentum,
            "augment": self.recipe.augment,
            "preprocessing": dict(self.recipe.preprocessing),
            "settings": dict(self.recipe.settings),
        }

    def account(self, choice: Choice) -> Account:
        """The account of a choice, from shapes alone. Raises where the method does not suit the network."""
        settings, apply = self.recipe.settings_for(choice.method), self.recipe.apply
        prepared = self.recipe.prepare(self.images, choice.build(), settings)
        network, optimizer, resolution = prepared.network, settings.make_optimizer(), prepared.preprocessing.resolution
        batch = min(settings.batch, len(settings.split(self.images)[0]))  # with few images all of them
        if apply:
            optimizer.begin(p for p in network.parameters() if p.trained)  # raises where it cannot
        held = predict(
            network,
            batch=batch,
            resolution=resolution,
            optimizer_slots=optimizer.slots,
            apply=apply,
            pixels=self.recipe.pixels,
        )
        return Account(held, network.trained_count, f"{network.name}, batch {batch}, {resolution} px")


def attempt(path: Path, recipe: Recipe, trial: Trial) -> Outcome:
    """One training run, from the files on disk: all that a worker needs is in the arguments."""
    images = data.load(path)
    asked = recipe.settings_for(trial.choice.method)
    settings = replace(asked, learning_rate=trial.learning_rate, seed=trial.seed)
    train, test = settings.split(images)
    if trial.search:
        held = draw(images.labels[train], settings.held_out, trial.seed)
        train, test = train[~held], train[held]
    method = trial.choice.build()
    if trial.choice not in WARM:  # a step of it: compiling the kernels is not the method's time
        next(recipe.prepare(images, method, settings).trainer(images, train, test, settings, apply=recipe.apply).run())
        WARM.add(trial.choice)
    prepared = recipe.prepare(images, method, settings)
    trainer = prepared.trainer(images, train, test, settings, apply=recipe.apply, judge_all=False)
    start = time.thread_time()
    for _ in trainer.run():
        pass
    seconds = time.thread_time() - start
    row = trainer.progress.epochs[trainer.progress.best - 1 if settings.patience else -1]
    return Outcome(trial, row["accuracy"], row["held_out_loss"], seconds)


def _network(name: str | None) -> Any:
    """What tells a network from others: a name of minitl's; of a table of one's own, all that it says."""
    return name if name is None or name in networks.NETWORKS else networks.get(name).table
