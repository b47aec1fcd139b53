"""What was not asked for, as in a model that `minitl train` wrote: its method, and its step of training."""

from __future__ import annotations

import argparse
from pathlib import Path

from minitl import networks
from minitl.training.choice import Choice
from minitl.training.model_file import ModelFile, read_model


def named(name: str) -> ModelFile | None:
    """The model in the file of that name; None where there is no file, or it is a network or a table that has it."""
    try:
        file = name not in networks.NETWORKS and not name.endswith(".toml") and Path(name).is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        file = False
    return read_model(Path(name)) if file else None


def fill_in(args: argparse.Namespace, file: ModelFile) -> None:
    """Method, batch, resolution and optimizer as in the model's training, of those that the verb has."""
    if "method" in args:
        use_method(args, file)
    for name, value in (
        ("batch", file.settings.batch),
        ("resolution", file.preprocessing.resolution),
        ("optimizer", file.settings.optimizer),
    ):
        if getattr(args, name) is None:
            setattr(args, name, value)


def use_method(args: argparse.Namespace, file: ModelFile) -> None:
    """Where no method was asked for, the model's; blocks and options that were asked for come on top."""
    if args.method is not None:
        return
    about = file.about["method"]
    args.method, args.blocks = about["name"], about["blocks"] if args.blocks is None else args.blocks
    args.rule = _rules(file) + args.rule
    for name in ("int8", "checkpoint", "apply"):
        setattr(args, name, getattr(args, name) or about[name])


def choice_of(file: ModelFile) -> Choice:
    """The model's method, to be compared with others."""
    about = file.about["method"]
    flags = [name for name in ("int8", "checkpoint") if about[name]]
    return Choice(about["name"], about["blocks"], (*flags, *_rules(file)))


def _rules(file: ModelFile) -> list[str]:
    return [f"{what}={rule}" for what, rule in file.about["method"]["rules"].items()]
