"""Sums of groups: each group's in its own precision, joined in float64 in their order, rounded once."""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape


def chain_shape(weight: Shape) -> Shape:
    """The shape of one group's gradient of a k x k convolution's weight (O, I, k, k), as it is added up."""
    return *weight[2:], weight[1], weight[0]


def join_chains(chains: Array, total: Array, gw: Array, *, turned: bool = True) -> None:
    """gw (O, I, k, k) = the sum of the groups' chains in order; `total` is room for it in float64.

    Chains are of `chain_shape` or, if they are not `turned`, of gw's. The sum is rounded once.
    """
    total = total.reshape(chains.shape[1:])
    total[...] = chains[0]
    for chain in chains[1:]:
        total += chain
    gw[...] = total.transpose(3, 2, 0, 1) if turned else total


def in_order(rows: Array) -> Array:
    """The sum of the rows, one after the other (NumPy's own order depends on the machine)."""
    total = np.zeros(rows.shape[1:], rows.dtype)
    for row in rows:
        total += row
    return total
