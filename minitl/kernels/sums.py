"""Sums of groups: each group's in its own precision, joined in float64 in their order, rounded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array


def add_groups(chains: Sequence[Array]) -> Array:
    """The sum of the groups' sums: added in float64, in order, and rounded once."""
    total = chains[0].astype(np.float64)
    for chain in chains[1:]:
        total += chain
    return total.astype(chains[0].dtype)


def join_groups(chains: Array, total: Array) -> None:
    """total (float64) = the sum of the groups' chains (groups, ...), in order."""
    total[...] = chains[0]
    for chain in chains[1:]:
        total += chain


def in_order(rows: Array) -> Array:
    """The sum of the rows, one after the other (NumPy's own order depends on the machine)."""
    total = np.zeros(rows.shape[1:], rows.dtype)
    for row in rows:
        total += row
    return total
