"""The command line: `minitl VERB`. It parses, hands over to the verb, and turns errors into exit codes.

0 done; 1 the check or comparison failed; 2 bad usage or bad input, one line on stderr; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from minitl import __version__
from minitl.errors import MinitlError
from minitl.verbs import bench, compare, estimate, evaluate, export, inspect, oracle, plan, predict, reproduce, train

VERBS = {
    "bench": bench,
    "compare": compare,
    "estimate": estimate,
    "evaluate": evaluate,
    "export": export,
    "inspect": inspect,
    "oracle": oracle,
    "plan": plan,
    "predict": predict,
    "reproduce": reproduce,
    "train": train,
}


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2 with the message and where to read more."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit, once all that was printed has gone out."""
        sys.stdout.flush()
        super().exit(status, message)


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    top = OneLineParser(
        prog="minitl", description="MobileTL in NumPy and Numba: fine-tune MobileNets in little memory, to the byte."
    )
    top.add_argument("--version", action="version", version=f"minitl {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        verb.add_arguments(verbs.add_parser(name, help=verb.HELP, description=verb.DESCRIPTION))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    try:
        args = parser().parse_args(arguments)
        code: int = VERBS[args.verb].run(args)
        sys.stdout.flush()
        return code
    except MinitlError as error:
        print(f"minitl {args.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"minitl {args.verb}: not enough memory: {str(error) or 'use a smaller batch'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
