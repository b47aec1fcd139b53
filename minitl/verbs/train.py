"""`minitl train`: fine-tune a network on images of one's own."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minitl import data, methods, networks
from minitl.accounting import Ledger, predict
from minitl.accounting.table import mb
from minitl.data.augment import Augmentation
from minitl.data.source import Source
from minitl.errors import MinitlError, UsageError
from minitl.layers import Norm
from minitl.networks import Network
from minitl.pixels import PIXELS
from minitl.training.logs import write_log
from minitl.training.model_file import continue_from, describe, read_model, write_model
from minitl.training.progress import Bar, bar
from minitl.training.recipe import Prepared
from minitl.training.settings import differences
from minitl.training.trainer import Trainer
from minitl.verbs import options, recipe_options, trained
from minitl.verbs.recipe_options import OF_PREPROCESSING, OF_SETTINGS, given

HELP = "fine-tune a network on your own images"
DESCRIPTION = """Trains a network on DATA: a folder per class (photos/cat/1.jpg), an .npz (images, labels), or a folder
of CIFAR's binary or of IDX files. A fifth of the images is held out, and accuracy is of that part, unless the data
have a part of their own for it (train and val, test_batch.bin, t10k-...). With --weights, a method trains the top of
the pretrained network; without, all of a new one."""
EXAMPLES = """
minitl train photos --network mobilenet_v2 --weights mobilenet_v2.pth --source torchvision --out photos.safetensors
minitl train photos --out photos.safetensors --resume              # go on after an interruption, to the same bytes
minitl train cifar-10-batches-bin --network mobilenet_v3_small --resolution 32 --epochs 30 --log log.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train`. None stands for the default: with --resume, for what the run was begun with."""
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder per class, .npz, CIFAR's or IDX files")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        metavar="MODEL",
        help="where the model goes, and its checkpoints before it (default: model.safetensors)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from --out; begin where nothing is there")
    parser.add_argument(
        "--checkpoint-every", type=int, metavar="STEPS", help="also after so many steps, not only after each epoch"
    )
    parser.add_argument(
        "--log",
        type=options.file_of(".csv", ".json"),
        metavar="FILE",
        help="write what each epoch came to (.csv or .json)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    recipe_options.add_network(parser.add_argument_group("network"))
    _add_method(parser.add_argument_group("method"))
    recipe_options.add_images(parser.add_argument_group("images"))
    training = parser.add_argument_group("training")
    recipe_options.add_training(training)
    training.add_argument("--seed", type=int, metavar="N", help="of all that is drawn at random (default: 0)")
    training.add_argument("--learning-rate", type=float, metavar="LR", help="default: by method and optimizer")
    training.add_argument(
        "--patience",
        type=int,
        metavar="EPOCHS",
        help="stop after so many without a better accuracy "
        "on the held-out part, and go back to the best (default: train to the end)",
    )


def _add_method(group: Any) -> None:
    group.add_argument(
        "--method",
        metavar="NAME",
        help=f"{', '.join(methods.METHODS)} (default: that of a model "
        "of minitl's in --weights; mobiletl with other weights; else ft-all)",
    )
    group.add_argument("--blocks", type=int, metavar="K", help="blocks tuned from the top (default: 5, or all)")
    options.add_method_options(group)
    group.add_argument(
        "--apply", action="store_true", help="apply gradients as they come, and hold hardly any: the same bytes"
    )


FAR = 0.1  # share of what running statistics began with, which spoils them
USUAL = 0.1  # momentum, as in torchvision
COLUMNS = 80  # of a line
OF_TABLE = ("width", "momentum")  # keys of a network's table that are options too
BROUGHT = {*OF_TABLE, "num_classes", "eps", "padding"}  # keys that images and weights bring along


@dataclass
class Job:
    """A run to be gone on with, and how it is described in its file."""

    trainer: Trainer
    about: dict[str, Any]
    ledger: Ledger
    notes: list[str] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """Train, and say what came of it."""
    options.check_named(args.out, ".safetensors")
    if args.checkpoint_every is not None and args.checkpoint_every < 1:
        raise UsageError(expected="--checkpoint-every of at least 1 step", got=str(args.checkpoint_every))
    source = data.load(args.data)
    job = _resumed(args, source) if args.resume and args.out.exists() else _begun(args, source)
    if not args.resume:
        job.notes += _replaced(args.out)
    if job.trainer.done:
        print(
            f"{args.out} is finished: nothing is left to do (it can be the --weights of another run)", file=sys.stderr
        )
    else:
        recipe_options.check_images(source)
        _train(args, job)
    _print(args, job)
    return 0


def _replaced(path: Path) -> Iterator[str]:
    """What becomes of a run that `path` holds, where it is not gone on with."""
    try:
        file = read_model(path)
    except MinitlError:  # there is none
        return
    epochs, progress = file.settings.epochs, file.about["progress"]
    held = f"a finished run (epochs: {epochs})" if file.finished else f"{len(progress['epochs'])} of {epochs} epochs"
    yield f"{path} holds {held}, which this run replaces; to keep it, stop now and give --resume or another --out"


def _begun(args: argparse.Namespace, source: Source) -> Job:
    """A new run."""
    recipe = recipe_options.recipe_of(args)
    if file := recipe.model:
        trained.use_method(args, file)
    chosen = args.method or recipe.default_method
    method = options.method(args, chosen, args.blocks)
    settings = recipe.settings_for(chosen)
    prepared = recipe.prepare(source, method, settings)
    trainer = prepared.trainer(source, *settings.split(source), settings, apply=args.apply)
    notes = [*prepared.report, *([] if recipe.weights else _random(trainer.network))]
    return Job(trainer, describe(trainer, method), _ledger(trainer), notes)


def _random(network: Network) -> Iterator[str]:
    """Of a new network, what is not trained stays as it was drawn."""
    count = sum(p.value.size for p in network.parameters() if not (p.trained or p.statistic or p.state))
    if count:
        yield f"without --weights what is not trained ({count:,} parameters) stays random"


def _resumed(args: argparse.Namespace, source: Source) -> Job:
    """The run that --out is a checkpoint of; raises where something else is asked for now."""
    file = read_model(args.out)
    about, method = file.about, file.about["method"]
    table = about["network"]["table"]
    begun = {**about["training"], **about["preprocessing"], "network": table["name"]}
    begun |= {name: table[name] for name in OF_TABLE}
    begun |= {**method, "method": method["name"], "augment": about["augmentation"]}
    asked = given(args, (*OF_SETTINGS, *OF_PREPROCESSING, *OF_TABLE, "network", "augment", "method", "blocks"))
    asked |= {name: True for name in ("int8", "checkpoint", "apply") if getattr(args, name)}
    if args.rule:
        asked["rules"] = options.rules(args.rule)
    if "network" in asked:
        own = networks.get(asked["network"]).table  # that of a file is in the file
        asked["network"] = own["name"]
    differences(begun, asked)
    if "network" in asked and any(own[key] != table[key] for key in own.keys() - BROUGHT):
        raise UsageError("was begun with another table", layer=args.network, op="resume", remedy="give another --out")
    if source.digest != about["data"]:
        raise UsageError("was begun with other images", op="resume", remedy="give the same DATA, or another --out")
    augmentation, pixels = Augmentation.parse(about["augmentation"]), args.images == PIXELS
    prepared = Prepared(file.network(), file.preprocessing, augmentation, pixels=pixels)
    settings = file.settings
    trainer = prepared.trainer(source, *settings.split(source), settings, apply=method["apply"])
    job = Job(trainer, {name: value for name, value in about.items() if name != "progress"}, _ledger(trainer))
    if file.finished:
        trainer.finished = True
    else:
        continue_from(file, trainer)
        job.notes.append(f"going on after {trainer.steps_done} of {trainer.steps} steps")
    return job


def _ledger(trainer: Trainer) -> Ledger:
    batch = max(stop - start for start, stop in trainer.spans)
    resolution, slots = trainer.train.preprocessing.resolution, trainer.optimizer.slots
    step: dict[str, Any] = {"apply": trainer.apply, "pixels": trainer.train.dtype == PIXELS}
    return predict(trainer.network, batch=batch, resolution=resolution, optimizer_slots=slots, **step)


def _train(args: argparse.Namespace, job: Job) -> None:
    trainer, every = job.trainer, args.checkpoint_every
    written = _state(args.out, trainer) if trainer.steps_done else "nothing was written yet"
    try:
        with bar("train", trainer.steps) as shown:
            for line in (*_introduction(job), *job.notes):
                shown.say(line)
            say = _Clock(trainer, shown).say
            for event in trainer.run():
                if isinstance(event, float):
                    shown.step(event)
                    if every and trainer.steps_done % every == 0:
                        write_model(args.out, trainer, job.about)
                        written = _state(args.out, trainer)
                else:
                    write_model(args.out, trainer, job.about)
                    written = _state(args.out, trainer)
                    if args.log:
                        write_log(args.log, trainer.progress.epochs)
                    say(event)
            for line in _lagging(trainer.network):
                shown.say(line)
    except KeyboardInterrupt as error:
        raise type(error)(written) from error


def _state(path: Path, trainer: Trainer) -> str:
    """What the file holds of the run, and how to go on."""
    epochs, batches = len(trainer.progress.epochs), trainer.progress.batches
    if trainer.done:
        return f"the finished model is in {path}"
    more = f" and {batches} of {len(trainer.spans)} steps" if batches else ""
    return f"{epochs} of {trainer.settings.epochs} epochs{more} are in {path}: the same command with --resume goes on"


def _lagging(network: Network) -> Iterator[str]:
    """Say that running statistics, by which images are judged, are still far from those of the images.

    Of what a norm began with, each batch leaves the share 1 - momentum. The counter says how many batches there were,
    those of earlier training too: pretrained weights bring it along, and their statistics are near. Where they bring
    none (Keras' do not) and the momentum is as little, statistics stay with other images: that is told as well.
    """
    left = {
        layer: (1 - layer.momentum) ** layer.batches
        for layer in network.layers()
        if isinstance(layer, Norm) and layer.plan.statistics == "batch"
    }
    if max(left.values(), default=0.0) <= FAR:
        return
    norm = max(left, key=left.__getitem__)
    helps = ["a smaller --batch", "more --epochs", f"--momentum {USUAL:g}"][: 3 if norm.momentum < USUAL else 2]
    told = (
        f"accuracy may be far too low: running statistics have gone {1 - left[norm]:.0%} of their way to the images "
        f"(steps: {norm.batches}, momentum: {norm.momentum:g}); {' or '.join((', '.join(helps[:-1]), helps[-1]))} helps"
    )
    yield from textwrap.wrap(told, COLUMNS)


class _Clock:
    """Tells what an epoch came to, how fast it went and how long the rest will take."""

    def __init__(self, trainer: Trainer, shown: Bar) -> None:
        self.trainer, self.shown = trainer, shown
        self.start, self.first = time.perf_counter(), trainer.steps_done

    def say(self, row: dict[str, Any]) -> None:
        """One line about an epoch."""
        trainer, spent = self.trainer, time.perf_counter() - self.start
        steps = trainer.steps_done - self.first
        left = 0 if trainer.done else round(spent / max(steps, 1) * (trainer.steps - trainer.steps_done))
        speed = steps * len(trainer.train) / len(trainer.spans) / spent
        self.shown.say(
            f"epoch {row['epoch']}/{trainer.settings.epochs}: loss {row['loss']:.4f}, "
            f"{row['train_accuracy']:.1%} right, {row['accuracy']:.1%} held out; "
            f"{speed:,.{1 if speed < 10 else 0}f} images/s, {left // 60}:{left % 60:02} left"
        )


def _introduction(job: Job) -> list[str]:
    trainer = job.trainer
    network, total = trainer.network, job.ledger.totals
    blocks = f" {network.tuned_blocks}" if network.tuned_blocks else ""
    return [
        f"{len(trainer.train)} images to train on, {len(trainer.held_out)} held out, "
        f"{len(trainer.train.source.classes)} classes",
        f"{network.name}, {network.method}{blocks}: trains {network.trained_count:,} parameters; "
        f"keeps {mb(total.kept_bytes)}, peak {mb(total.peak_bytes or 0)}",
    ]


def _print(args: argparse.Namespace, job: Job) -> None:
    epochs, totals = job.trainer.progress.epochs, job.ledger.totals
    memory = {"kept_bytes": totals.kept_bytes, "peak_bytes": totals.peak_bytes}
    if args.json:
        options.print_json("train", {"epochs": epochs, "model": str(args.out), **memory})
        return
    if epochs:
        row = epochs[job.trainer.progress.best - 1 if job.trainer.settings.patience else -1]
        print(f"accuracy on the held-out part: {row['accuracy']:.1%} (epoch {row['epoch']})")
        print(f"wrote {args.out}")
