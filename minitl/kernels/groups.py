"""The order of summation over positions, prescribed so that everybody gets the same bytes.

A *group* is the fewest consecutive whole samples with at least 192 positions: a function of
shapes alone. Within a group a weight's gradient is one chain of fused multiply-adds; groups are added
in float64, in their order, and rounded once. (One chain over everything would be as fast, and its rounding
error three to four times as large.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minitl.arrays import Array, Shape, positions

LEAST = 192  # positions in a group


def group_size(shape: Shape) -> int:
    """How many samples of a map (N, ..., C) are one group."""
    return -(-LEAST // positions(shape[1:]))


class Groups(Sequence[tuple[int, int]]):
    """The groups of a map (N, ..., C), as pairs of positions: the first, and the one after the last."""

    def __init__(self, shape: Shape) -> None:
        self.samples, self.area, self.size = shape[0], positions(shape[1:]), group_size(shape)

    def __len__(self) -> int:
        return (self.samples + self.size - 1) // self.size

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        first = number * self.size
        return first * self.area, min(first + self.size, self.samples) * self.area


def by_groups(x: Array) -> list[Array]:
    """The rows (M, C) of each group of a map (N, ..., C)."""
    rows = x.reshape(-1, x.shape[-1])
    return [rows[first:last] for first, last in Groups(x.shape)]
