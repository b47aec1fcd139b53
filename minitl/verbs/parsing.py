"""How words of the command line are parsed: argparse, with errors of one line that suggest what may be meant."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from typing import Any, NoReturn

from minitl.errors import did_you_mean

EXAMPLES = "examples:"
VALUE, HARD = re.compile(r"(--[a-z-]+) (?!-)"), "\xa0"  # an option and its value stay together in a row
LONG = 30  # characters of a word that is a list
LONGEST = 2000  # characters of an error
MOST = 10**12  # of anything that is counted


class Help(argparse.HelpFormatter):
    """Help that shows defaults, and breaks examples only where a shell reads them alike."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        shown = action.default not in (None, False, argparse.SUPPRESS) and action.default != []
        return f"{text} (default: %(default)s)" if shown and "default" not in text else text

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n  " not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(row for line in text.splitlines() for row in _rows(line, width))


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line; every verb has `--traceback`."""

    def __init__(self, *arguments: Any, examples: str = "", **options: Any) -> None:
        lines = [f"  {line}" for line in examples.strip().splitlines()]
        epilog = "\n".join([EXAMPLES, *lines]) if lines else None
        super().__init__(*arguments, **{"formatter_class": Help, "epilog": epilog, **options})
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -5MB is a value, which its option refuses
        self.register("type", int, _whole)  # what `type=int` means, for every option of every verb
        self.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,  # a verb's own default would override what stands before the verb
            help="show where an error comes from",
        )

    def error(self, message: str) -> NoReturn:
        """Exit 2 with the message and where to read more."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit, once all that was printed has gone out."""
        sys.stdout.flush()
        super().exit(status, message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and tell the verb's own users about a word it does not know.

        A word that may be left out may stand behind the options too, which argparse before Python 3.12.7 forbids.
        """
        known, extra = super().parse_known_args(args, namespace)
        optional = [action for action in self._get_positional_actions() if action.nargs == argparse.OPTIONAL]
        for action in optional:
            if extra and not extra[0].startswith("-") and getattr(known, action.dest) is action.default:
                setattr(known, action.dest, self._get_values(action, [extra.pop(0)]))
        if extra:
            options = [option for option in self._option_string_actions if option.startswith("--")]
            hint = did_you_mean(extra[0].partition("=")[0], options)
            if optional and not extra[0].startswith("-"):
                hint = f"; there may be one {optional[-1].metavar} only"
            self.error(f"unrecognized arguments: {' '.join(extra)}{hint}")
        return known, extra

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            listed = ", ".join(names)
            raise argparse.ArgumentError(
                action, f"invalid choice: {value!r}{did_you_mean(value, names)} (choose from {listed})"
            )


def _rows(line: str, width: int) -> list[str]:
    """A line as it is; a longer example has its remark above it, and a backslash at each break of the command."""
    if len(line) <= width:
        return [line]
    if not line.startswith("  minitl "):
        hanging = " " * 20 if line.startswith(" ") else ""
        return textwrap.wrap(line, width, subsequent_indent=hanging, break_on_hyphens=False)
    command, _, comment = line.partition("  #")
    together = VALUE.sub(f"\\1{HARD}", command.rstrip())
    rows = textwrap.wrap(together, width - 2, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False)
    rows = [row.replace(HARD, " ") for row in rows]
    return [*([f"  #{comment}"] if comment else []), *(f"{row} \\" for row in rows[:-1]), rows[-1]]


def wrapped(text: str, width: int) -> list[str]:
    """The text in rows, broken between words, and in a long list after a comma; never in a method's name."""
    rows = [""]
    for word in text.split():
        pieces = re.findall(r"[^,]+,?", word) if len(word) > LONG else [word]
        for piece in (*pieces[:-1], f"{pieces[-1]} "):
            if rows[-1] and len(rows[-1]) + len(piece.rstrip()) > width:
                rows.append("")
            rows[-1] += piece
    return [row.rstrip() for row in rows]


def one_line(text: str) -> str:
    """The text on one line, as a terminal can show it: what is not printable is escaped, what is too long cut."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _whole(text: str) -> int:
    """Read a whole number; raises for one that nothing of this world has so many of."""
    number = int(text)
    if abs(number) > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is beyond {MOST:,}")
    return number
