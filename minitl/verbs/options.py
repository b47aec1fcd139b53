"""Options that several verbs share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minitl import methods, networks
from minitl.accounting.plot import check as check_plot
from minitl.data.image import SUFFIXES
from minitl.errors import MinitlError, UsageError, ValueRangeError, unknown
from minitl.files import check_writable
from minitl.kernels import threads as kernel_threads
from minitl.methods import METHODS, Method
from minitl.networks import Model, Network
from minitl.networks.irb import PAPER
from minitl.pixels import PIXELS
from minitl.training import settings
from minitl.training.model_file import ModelFile
from minitl.verbs import trained

IRB_RESOLUTION = 7
NUMBERS = "float"  # what images are, if they are no pixels
DEFAULTS = {"batch": 8, "optimizer": "sgd", "method": "mobiletl", "images": NUMBERS}
# numbers kept a trained parameter
OPTIMIZERS = {"none": 0, **{name: make(lr=1.0).slots for name, make in settings.OPTIMIZERS.items()}}
PROMISES = (  # a file named so is taken for one of that kind, by people and by programs
    *SUFFIXES, ".csv", ".h5", ".hdf5", ".html", ".json", ".keras", ".npy", ".npz", ".onnx", ".pdf", ".pt", ".pth",
    ".safetensors", ".svg", ".toml", ".txt", ".xml", ".zip",
)  # fmt: skip
LARGEST = 10**6  # of an irb's attributes: of larger ones NumPy cannot even say that there is no memory for them
READERS: dict[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: lambda text: _bounded(int(text)),
    str: str,
}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model: its name or table, width, classes, dtype, and an irb's attributes."""
    known = (*networks.NETWORKS, "irb")
    told = (
        f"one of {', '.join(known)}; or a table of your own, mine.toml (README: Your own network); or a model that "
        "`minitl train` wrote: what is not asked for is then as it was trained"
    )
    parser.add_argument("network", metavar="NETWORK", help=told)
    parser.add_argument("--width", type=float, metavar="W", help="multiplies channels (default: the network's)")
    parser.add_argument("--classes", type=int, metavar="K", help="number of classes (default: the network's)")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or float64")
    parser.add_argument(
        "--attr",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"of an irb, one of {', '.join(PAPER)} (default: the paper's MobileNetV3 block)",
    )


def add_step(parser: argparse.ArgumentParser) -> None:
    """Which step: batch, resolution, optimizer."""
    parser.add_argument("--batch", type=int, metavar="N", help=f"images in a batch (default: {DEFAULTS['batch']})")
    parser.add_argument(
        "--resolution", type=int, metavar="PX", help="height and width (default: the network's, mostly 224; irb 7)"
    )
    parser.add_argument(
        "--optimizer",
        metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)}; sgd has momentum (default: {DEFAULTS['optimizer']})",
    )


def step(args: argparse.Namespace) -> dict[str, Any]:
    """Which step, as `predict` takes it."""
    return {
        "batch": args.batch,
        "resolution": args.resolution,
        "optimizer_slots": slots(args),
        "apply": args.apply,
        "pixels": args.images == PIXELS,
    }


def add_images(parser: Any) -> None:
    """How images are given."""
    told = "as they are normalised (default), or uint8, as from a camera: then normalised sample by sample"
    parser.add_argument("--images", choices=(NUMBERS, PIXELS), help=told)


def add_memory(parser: argparse.ArgumentParser) -> None:
    """What else decides how much memory a step takes."""
    parser.add_argument("--apply", action="store_true", help="apply each gradient as it comes, then let it go")
    add_images(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads, each with scratch memory (default: cores)")


@contextmanager
def threads(args: argparse.Namespace) -> Iterator[None]:
    """Work with as many threads as were asked for."""
    before = kernel_threads.count()
    if args.threads is not None:
        kernel_threads.set_threads(args.threads)
    try:
        yield
    finally:
        kernel_threads.set_threads(before)


def add_plot(parser: argparse.ArgumentParser, what: str) -> None:
    """Where a plot goes."""
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help=f"draw {what} (.png, .pdf, .svg)")


def plot_file(text: str) -> Path:
    """A file for a plot, for an option's `type`; refused before any work is done where none could be written."""
    return _checked(Path(text), check_plot)


def file_of(*types: str) -> Callable[[str], Path]:
    """The same for a file of one of these types."""

    def check(path: Path) -> None:
        if path.suffix.lower() not in types:
            raise UsageError(f"unknown file type {path.suffix!r} of {path}", remedy=f"use {' or '.join(types)}")
        check_writable(path)

    return lambda text: _checked(Path(text), check)


def check_named(path: Path, own: str) -> None:
    """Raise UsageError where a file of type `own` could not be written, or its name promises another type.

    Any other name will do: `model.safetensors`, `model`, `model-0.75`.
    """
    ending = path.suffix.lower()
    if ending in PROMISES and ending != own:
        raise UsageError(f"what is written is no {ending}", layer=str(path), remedy=f"use {own}")
    check_writable(path)


def _checked(path: Path, check: Callable[[Path], None]) -> Path:
    try:
        check(path)
    except MinitlError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def tell_file(args: argparse.Namespace, path: Path, more: str = "") -> None:
    """Say that a file is there; a program that reads what is printed knows."""
    if not (args.json or getattr(args, "csv", False)):
        print(f"\nwrote {path}{more}")


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """What every method can be combined with."""
    parser.add_argument("--int8", action="store_true", help="hold frozen weights as int8, one scale per output channel")
    parser.add_argument(
        "--checkpoint", action="store_true", help="keep only the tuned blocks' inputs and run the blocks again"
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="WHAT=RULE",
        help="backward rule of an activation (hard_swish=few2) or a role (expand_act=output, project=filter2)",
    )


def method(args: argparse.Namespace, name: str, blocks: int | None) -> Method:
    """The method of that name with the options given."""
    return methods.get(name, blocks, quantised=args.int8, checkpoint=args.checkpoint, rules=rules(args.rule))


def rules(pairs: Sequence[str]) -> dict[str, str]:
    """`["hard_swish=few2"]` as backward rules by activation or role."""
    found = {}
    for pair in pairs:
        what, equals, rule = pair.partition("=")
        if not equals:
            raise ValueRangeError(expected="--rule WHAT=RULE", got=repr(pair))
        found[what] = rule
    return found


def options_text(args: argparse.Namespace) -> str:
    """The method's options as they are told in a heading."""
    told = ["frozen weights int8"] * args.int8 + ["checkpointed blocks"] * args.checkpoint + args.rule
    told += ["gradients applied as they come"] * getattr(args, "apply", False)
    told += ["images in uint8"] * (getattr(args, "images", None) == PIXELS)
    return "".join(f", {option}" for option in told)


def model(args: argparse.Namespace) -> Model:
    """The model asked for; also fills in what was not: as the model was trained, where it is a file's, or a default."""
    file = trained.named(args.network)
    if file:
        trained.fill_in(args, file)
    found = _model(args, file)
    resolution = found.table["resolution"] if isinstance(found, Network) else IRB_RESOLUTION
    for name, value in {**DEFAULTS, "resolution": resolution}.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if isinstance(found, Network) and getattr(args, "images", None) == PIXELS:
        found.normalisation = "imagenet"  # any takes the same memory
    return found


def _model(args: argparse.Namespace, file: ModelFile | None) -> Model:
    if args.network == "irb":
        for option in ("classes", "width"):
            if getattr(args, option) is not None:
                raise ValueRangeError(f"irb: a single block has no {option}", remedy=f"leave --{option} out")
        return networks.irb(dtype=args.dtype, **_attrs(args.attr))
    if args.attr:
        raise ValueRangeError(f"{args.network}: --attr is for an irb", remedy="leave --attr out")
    asked = {"dtype": args.dtype, "num_classes": args.classes, "width": args.width}
    if file:
        return networks.from_table(file.table, **asked)
    if args.network not in networks.NETWORKS and not args.network.endswith(".toml"):
        raise unknown("network", args.network, (*networks.NETWORKS, "irb"))
    return networks.get(args.network, **asked)


def slots(args: argparse.Namespace) -> int:
    """How many numbers the optimizer keeps for each trained parameter."""
    if args.optimizer not in OPTIMIZERS:
        raise unknown("optimizer", args.optimizer, OPTIMIZERS)
    return OPTIMIZERS[args.optimizer]


def blocks_for(method: str, blocks: int | None) -> int | None:
    """`blocks`, or None for a method that takes no number of blocks."""
    return blocks if method in METHODS and METHODS[method].takes_blocks else None


def print_json(verb: str, data: Mapping[str, Any]) -> None:
    """One JSON object on stdout, under its schema's name."""
    print(json.dumps({"schema": f"minitl-{verb}/1", **data}))


def _attrs(pairs: Sequence[str]) -> dict[str, Any]:
    """`["kernel=3", "expand=false"]` as values of the types that a block's attributes have."""
    attrs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if name not in PAPER or not equals:
            raise unknown("attribute", pair, (f"{key}=..." for key in PAPER))
        read = READERS[type(PAPER[name])]
        try:
            attrs[name] = read(text)
        except (KeyError, ValueError):
            raise ValueRangeError(expected=f"--attr {name} like {PAPER[name]}", got=repr(text)) from None
    return attrs


def _bounded(size: int) -> int:
    if abs(size) > LARGEST:
        raise ValueError
    return size
