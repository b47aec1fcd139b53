"""Completion of the command line in bash, zsh and fish, by argcomplete."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from minitl import devices, methods, networks
from minitl.data.preprocess import SOURCES
from minitl.errors import UsageError
from minitl.verbs import options, reproduce

SHELLS = ("bash", "zsh", "fish")
METHODS = list(methods.METHODS)
NAMES: dict[str, tuple[Iterable[str], tuple[str, ...]]] = {  # by argument: names, and types of files, known for it
    "network": ((*networks.NETWORKS, "irb"), ("toml", "safetensors")),
    "method": (METHODS, ()),
    "methods": (METHODS, ()),
    "against": (METHODS, ()),
    "device": (devices.names(), ("toml",)),
    "source": (SOURCES, ()),
    "optimizer": (options.OPTIMIZERS, ()),
    "item": ((*reproduce.ITEMS, "all"), ()),
}


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may come next, and end; do nothing in every other run."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        for action in _actions(parser):
            if action.choices is None and action.dest in NAMES:
                action.completer = _completer(*NAMES[action.dest])  # type: ignore[attr-defined]
        argcomplete.autocomplete(parser, always_complete_options="long")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those of all verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)


def _completer(names: Iterable[str], files: tuple[str, ...]) -> Callable[..., list[str]]:
    """What argcomplete asks for all words that may begin with `prefix`, of a list for its last part."""

    def complete(prefix: str, **_: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        before, comma, _rest = prefix.rpartition(",")
        found = [f"{before}{comma}{name}" for name in names]
        return [*found, *(FilesCompleter(files)(prefix) if files else ())]

    return complete


class Completion(argparse.Action):
    """Print the shell code that switches completion on."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, choices=SHELLS, **options)

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, shell: Any, option: Any = None) -> None:
        """Print, and end; raises UsageError where argcomplete is missing."""
        try:
            from argcomplete.shell_integration import shellcode
        except ImportError:
            raise UsageError("completion needs argcomplete", remedy="pip install 'minitl[demo]'") from None
        print(shellcode(["minitl"], shell=shell))
        parser.exit()
