"""What a training run is made from, as options of `train` and `compare`: network, weights, images, settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minitl.data.augment import KINDS
from minitl.data.preprocess import FITS, SOURCES
from minitl.data.source import Source
from minitl.errors import UsageError
from minitl.pixels import NORMALISATIONS, PIXELS
from minitl.training.progress import bar
from minitl.training.recipe import DEFAULT_NETWORK, Recipe
from minitl.training.settings import OPTIMIZERS, SCHEDULES, Settings
from minitl.verbs import options, trained

OF_NETWORK = ("network", "weights", "source", "width", "strict", "momentum", "augment")  # fields of a Recipe
OF_PREPROCESSING = ("resolution", "normalisation", "fit", "zoom")
OF_SETTINGS = tuple(Settings.__dataclass_fields__)


def add_network(group: Any) -> None:
    """The network and its weights."""
    group.add_argument(
        "--network",
        metavar="NAME|FILE.toml",
        help=f"as in inspect, also a table of your own (default: {DEFAULT_NETWORK}, or that of --weights)",
    )
    group.add_argument("--width", type=float, metavar="W", help="multiplies channels (default: the network's)")
    group.add_argument("--weights", type=Path, metavar="FILE", help="pretrained weights, or a model of minitl's")
    group.add_argument("--source", metavar="NAME", help=f"where the weights come from: {', '.join(SOURCES)}")
    group.add_argument(
        "--strict",
        action=argparse.BooleanOptionalAction,
        help="refuse weights that lack some of the network's or have others besides (default), or take those that fit",
    )
    group.add_argument(
        "--momentum",
        type=float,
        metavar="X",
        help="share of a new batch in the norms' running statistics (default: that of the weights; Keras' is mostly "
        "0.01 or 0.001, too little for a short fine-tuning with batch statistics: then give 0.1)",
    )


def add_images(group: Any) -> None:
    """What becomes of the images, and which are trained on."""
    group.add_argument("--resolution", type=int, metavar="PX", help="height and width (default: the network's)")
    group.add_argument("--fit", choices=FITS, help="make an image square: cut, pad or stretch it (default: crop)")
    group.add_argument(
        "--zoom", type=float, metavar="SHARE", help="of the image's shorter side: what crop takes (default: 1)"
    )
    group.add_argument("--normalisation", choices=tuple(NORMALISATIONS), help="default: that of --source; imagenet")
    options.add_images(group)
    group.add_argument(
        "--augment",
        metavar="LIST",
        help=f"none, or of {', '.join(KINDS)} (default: flip,shift for a folder and CIFAR, else shift)",
    )
    group.add_argument("--held-out", type=float, metavar="SHARE", help="of the images, to judge by (default: 0.2)")
    group.add_argument("--per-class", type=int, metavar="N", help="train on N images of each class, judge by the rest")


def add_training(group: Any) -> None:
    """The settings of training, but for those that a comparison chooses itself."""
    group.add_argument("--epochs", type=int, metavar="N", help="default: 10")
    group.add_argument("--batch", type=int, metavar="N", help="images in a batch (default: 16)")
    group.add_argument("--optimizer", choices=tuple(OPTIMIZERS), help="default: adam")
    group.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate (default: cosine)")
    group.add_argument("--warmup", type=float, metavar="EPOCHS", help="in which the learning rate rises (default: 0)")
    group.add_argument("--weight-decay", type=float, metavar="X", help="default: 0")
    group.add_argument("--decay-vectors", action="store_true", default=None, help="decay norms and biases too")
    group.add_argument("--clip-norm", type=float, metavar="X", help="largest norm of all gradients (default: none)")
    group.add_argument("--label-smoothing", type=float, metavar="X", help="default: 0")
    group.add_argument(
        "--class-weights",
        metavar="balanced|W,W,...",
        help="balanced: a rare class's images count more; or a number for each class (default: all alike)",
    )


def check_images(images: Source) -> None:
    """Before any work, raise DataError where some of the images cannot be read."""
    with bar("look into all images", len(images)) as shown:
        images.check(shown.step)


def recipe_of(args: argparse.Namespace) -> Recipe:
    """What the options ask for; raises UsageError where the network is a model, which knows more than its network."""
    if args.network and trained.named(args.network):
        raise UsageError("is a model that `minitl train` wrote", layer=args.network, remedy="give it as --weights")
    return Recipe(
        **given(args, OF_NETWORK),
        preprocessing=given(args, OF_PREPROCESSING),
        settings=given(args, OF_SETTINGS),
        pixels=args.images == PIXELS,
    )


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that the verb has and that were given."""
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}
