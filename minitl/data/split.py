"""What is learnt from, and what is held out."""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array
from minitl.data.source import Source
from minitl.errors import ValueRangeError


def split(source: Source, fraction: float, seed: int) -> tuple[Array, Array]:
    """Indices of the images to train on and of those held out, both ascending.

    The data's own held-out part, where they have one; else `fraction` of the images, drawn by
    `seed`, of each class in proportion. Raises ValueRangeError where either part would be empty.
    """
    held = source.held_out if source.held_out is not None else draw(source.labels, fraction, seed)
    return np.flatnonzero(~held), np.flatnonzero(held)


def draw(labels: Array, fraction: float, seed: int) -> Array:
    """Mark round(fraction N) of the labels (N,), of each class in proportion.

    Every class is put in random order; the image at place i of n gets the rank (i + 1/2) / n, and
    the lowest ranks of all classes are taken.
    """
    count = round(fraction * len(labels)) if 0 < fraction < 1 else 0
    if not 1 <= count < len(labels):
        raise ValueRangeError(
            op="split", expected="a fraction that leaves images both to train on and to test on",
            got=f"{fraction:g} of {len(labels)} images",
        )  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = labels[order] == label
        total = members.sum()
        rank[members] = (np.arange(total) + 0.5) / total
    held = np.zeros(len(labels), bool)
    held[order[np.argsort(rank, kind="stable")[:count]]] = True
    return held
