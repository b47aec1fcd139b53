"""What is printed for people: plain in pipes and files; on a terminal as wide as it is, and in colour where rich is."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Any

from minitl.accounting.table import Table

SHORTEST = 12  # characters of a name that may stand in a row
PLAIN = "NUMBA_DISABLE_JIT is set: the peak is that of the plain loops, not of the compiled kernels"


def show(*parts: str) -> None:
    """Print texts and tables, an empty line between two.

    A pipe gets every column. A terminal gets those it has room for, and is told which are left out.
    """
    for number, part in enumerate(parts):
        if number:
            print()
        if not sys.stdout.isatty():
            print(part)
        elif isinstance(part, Table):
            _show_fitted(part)
        else:
            print("\n".join(_wrapped(line) for line in part.splitlines()))


def _wrapped(line: str) -> str:
    return textwrap.fill(line, shutil.get_terminal_size().columns) if line else line


def _show_fitted(part: Table) -> None:
    width = shutil.get_terminal_size().columns
    cells, left_out = part.cells.fitted(width)
    console = _console()
    if console is None:
        print(cells)
    else:
        room = max(SHORTEST, cells.widths[0] - max(0, cells.width - width))
        console.print(_rich(cells, room), soft_wrap=False)
    if left_out:
        show(f"(no room for {', '.join(left_out)}: see them in a wider terminal, a pipe, or --json)")


def _console() -> Any:
    """Rich's console on stdout, or None where there is no rich."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=sys.stdout, highlight=False, markup=False)


def broken(name: str, room: int) -> str:
    """A layer's name in rows of at most `room` characters, broken after a dot where there is one."""
    rows = []
    while len(name) > room:
        end = name.rfind(".", 0, room) + 1 or room
        rows.append(name[:end])
        name = name[end:]
    return "\n".join([*rows, name])


def _rich(cells: Any, room: int) -> Any:
    """The cells as rich's table, `room` characters for the first column; what is too wide is folded in its column."""
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for number, name in enumerate(cells.header):
        right = number in cells.right
        drawn.add_column(
            Text(name), justify="right" if right else "left", style="cyan" if number == 0 else "", overflow="fold"
        )
    for name, *rest in cells.rows:
        drawn.add_row(*map(Text, (broken(name, room), *rest)))
    return drawn
