"""Plain text tables, and numbers of bytes as people read them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


def mb(count: int) -> str:
    """Bytes as megabytes (1e6), three decimals: `2.164 MB`."""
    return f"{count / 1e6:.3f} MB"


@dataclass(frozen=True)
class Cells:
    """What stands in a table; columns in `right` are right-aligned, those in `optional` may be left out, in order."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int]
    optional: tuple[str, ...]

    @property
    def widths(self) -> list[int]:
        """Characters of the widest cell of each column."""
        return [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]

    @property
    def width(self) -> int:
        """Characters of a line."""
        return sum(self.widths) + 2 * (len(self.header) - 1)

    def without(self, name: str) -> Cells:
        """All columns but that one."""
        i = self.header.index(name)
        rows = tuple((*row[:i], *row[i + 1 :]) for row in self.rows)
        right = frozenset(n - (n > i) for n in self.right if n != i)
        return Cells((*self.header[:i], *self.header[i + 1 :]), rows, right, self.optional)

    def fitted(self, width: int) -> tuple[Cells, list[str]]:
        """As many columns as `width` has room for, and the names of those left out."""
        cells, out = self, []
        for name in (name for name in self.optional if name in self.header):
            if cells.width <= width:
                break
            cells = cells.without(name)
            out.append(name)
        return cells, out

    def __str__(self) -> str:
        widths = self.widths

        def line(row: Sequence[str]) -> str:
            ends = (
                c.rjust(w) if i in self.right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            )
            return "  ".join(ends).rstrip()

        return "\n".join([line(self.header), "  ".join("-" * w for w in widths), *map(line, self.rows)])


class Table(str):
    """A table as text, which still knows its cells: a terminal may be too narrow for all of them."""

    cells: Cells


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Collection[int] = (),
    optional: Sequence[str] = (),
) -> Table:
    """Columns as wide as their widest cell; those numbered in `right` are right-aligned.

    `optional` names columns that a narrow terminal may leave out, the least important first.
    """
    texts = tuple(tuple(map(str, row)) for row in rows)
    cells = Cells(tuple(header), texts, frozenset(right), tuple(optional))
    made = Table(str(cells))
    made.cells = cells
    return made
