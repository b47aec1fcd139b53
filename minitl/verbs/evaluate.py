"""`minitl evaluate`: how many images a model gets right."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from minitl import data
from minitl.accounting.table import table
from minitl.arrays import Array
from minitl.data.batches import Part
from minitl.data.source import Source
from minitl.errors import DataError, UsageError
from minitl.training.model_file import ModelFile, read_model
from minitl.training.progress import bar
from minitl.training.trainer import Judged, evaluate
from minitl.verbs import options
from minitl.verbs.recipe_options import check_images
from minitl.verbs.terminal import show

HELP = "accuracy of a model on images"
DESCRIPTION = """Classifies the images of DATA with a model that `minitl train` wrote. By default all of them, or the
held-out part where DATA have one of their own (val, test_batch.bin, t10k-...). DATA may hold some of the model's
classes only."""
EXAMPLES = """
minitl evaluate photos.safetensors more_photos
minitl evaluate photos.safetensors photos --part held-out     # the fifth that `minitl train` held out
"""
PARTS = ("all", "train", "held-out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file that `minitl train` wrote")
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder per class, .npz, CIFAR's or IDX files")
    parser.add_argument("--part", choices=PARTS, help="which images; train and held-out as in training, by its seed")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images at a time (default: 16)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    if args.batch < 1:
        raise UsageError(expected="--batch of at least 1", got=str(args.batch))
    model = read_model(args.model)
    source = data.load(args.data, least_classes=1)
    chosen = _chosen(source, model, args.part)
    if args.part is None and source.held_out is None and source.digest == model.about["data"]:
        seen = len(model.settings.split(source)[0])
        told = f"{seen} of these {len(source)} images were trained on; --part held-out judges by the others"
        print(told, file=sys.stderr)
    adopt_classes(source, model.classes)
    network = model.network()
    check_images(source)
    part = Part(source, chosen, model.preprocessing, dtype=network.dtype)
    with bar("evaluate", -(-len(part) // args.batch)) as shown:
        judged = evaluate(network, part, args.batch, shown.step)
    count = int(judged.count.sum())
    if args.json:
        found = {"accuracy": judged.accuracy, "count": count, "loss": judged.loss}
        options.print_json("evaluate", {**found, "classes": _rows(model, judged)})
    else:
        rows = [(r["class"], r["count"], f"{r['accuracy']:.1%}") for r in _rows(model, judged)]
        total = f"accuracy: {judged.accuracy:.1%} of {count} images, loss {judged.loss:.4f}"
        show(table(("class", "images", "accuracy"), rows, right=(1, 2)), total)
    return 0


def _chosen(source: Source, model: ModelFile, part: str | None) -> Array:
    """Indices of the images that are asked for."""
    part = part or ("all" if source.held_out is None else "held-out")
    if part == "all":
        return np.arange(len(source))
    if source.held_out is None and source.digest != model.about["data"]:
        raise UsageError(
            f"which images are its {part} part is known only for the data the model was trained on", op="evaluate",
            remedy="leave --part out",
        )  # fmt: skip
    train, held_out = model.settings.split(source)
    return train if part == "train" else held_out


def adopt_classes(source: Source, classes: tuple[str, ...]) -> None:
    """Count the source's labels into the model's classes, by name: all of those, or some.

    Raises DataError for images of a class that the model does not know.
    """
    number = {name: index for index, name in enumerate(classes)}
    strange = [name for name in map(source.classes.__getitem__, np.unique(source.labels)) if name not in number]
    if strange:
        known = ", ".join(classes[:8])
        raise DataError(
            op="evaluate", expected=f"classes that the model knows ({known})", got=", ".join(strange[:8]),
            remedy="name them alike: folders by their names, an .npz by an array `classes`",
        )  # fmt: skip
    source.labels = np.array([number.get(name, -1) for name in source.classes])[source.labels]
    source.classes = classes


def _rows(model: ModelFile, judged: Judged) -> list[dict[str, object]]:
    return [
        {"class": name, "count": int(count), "accuracy": int(correct) / int(count)}
        for name, count, correct in zip(model.classes, judged.count, judged.correct, strict=True)
        if count
    ]
