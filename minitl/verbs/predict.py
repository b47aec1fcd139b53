"""`minitl predict`: what a model sees in image files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minitl.accounting.table import table
from minitl.arrays import Array
from minitl.data.check import expect_images
from minitl.data.image import read_image
from minitl.errors import UsageError
from minitl.tape import Tape
from minitl.training.model_file import ModelFile, read_model
from minitl.verbs import options
from minitl.verbs.terminal import show

HELP = "classify image files with a model"
DESCRIPTION = """Prints the most probable class of each image, by a model that `minitl train` wrote."""
EXAMPLES = """
minitl predict photos.safetensors cat.jpg
minitl predict photos.safetensors *.jpg --top 3 --json
"""
BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `predict`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file that `minitl train` wrote")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--top", type=int, default=1, metavar="K", help="so many classes per image (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Classify and print."""
    if args.top < 1:
        raise UsageError(expected="--top of at least 1", got=str(args.top))
    for path in args.images:
        if path.is_dir():
            raise UsageError("is a folder", layer=str(path), remedy=f"give its images: {path / '*'}")
    model = read_model(args.model)
    expect_images([str(path) for path in args.images])
    results = []
    for path, probabilities in zip(args.images, probabilities_of(model, args.images), strict=True):
        for best in np.argsort(-probabilities, kind="stable")[: args.top]:
            found = {"image": str(path), "class": model.classes[best], "probability": float(probabilities[best])}
            results.append(found)
    if args.json:
        options.print_json("predict", {"results": results})
    else:
        rows = [(r["image"], r["class"], f"{r['probability']:.1%}") for r in results]
        show(table(("image", "class", "probability"), rows, right=(2,)))
    return 0


def probabilities_of(model: ModelFile, images: list[Path]) -> Iterator[Array]:
    """Softmax of the logits (K,), image by image."""
    network, preprocessing = model.network(), model.preprocessing
    for start in range(0, len(images), BATCH):
        pixels = np.stack([preprocessing.resize(read_image(path)) for path in images[start : start + BATCH]])
        logits = network(Tape(training=False), preprocessing.normalise(pixels, network.dtype)).value
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        yield from powers / powers.sum(axis=1, keepdims=True)
