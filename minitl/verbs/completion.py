"""Completion of the command line in bash, zsh and fish, by argcomplete."""

from __future__ import annotations

import argparse
import os
from typing import Any

from minitl.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may come next, and end; do nothing in every other run."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options="long")


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
