"""What is learnt from, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array
from minitl.data.source import Source
from minitl.errors import ValueRangeError


def split(source: Source, fraction: float, seed: int, per_class: int = 0) -> tuple[Array, Array]:
    """Indices of the images to train on and of those held out, both ascending.

    Held out is the data's own part, where they have one; else `fraction` of the images, drawn by
    `seed`, of each class in proportion. With `per_class`, that many images of each class, drawn by
    `seed`, are trained on, and all others are held out (or, with a part of their own, left out).
    Raises ValueRangeError where either part would be empty, or a class has not as many images.
    """
    own = source.held_out
    if not per_class:
        held = draw(source.labels, fraction, seed) if own is None else own
        return np.flatnonzero(~held), np.flatnonzero(held)
    taken = draw_each(
        source.labels, np.ones(len(source), bool) if own is None else ~own, per_class, seed, source.classes
    )
    held = ~taken if own is None else own
    if not held.any():
        raise ValueRangeError(
            op="split", expected="images that are left to test on", got=f"{per_class} of each class to train on",
            remedy="train on fewer",
        )  # fmt: skip
    return np.flatnonzero(taken), np.flatnonzero(held)


def draw_each(labels: Array, among: Array, per_class: int, seed: int, classes: Sequence[str]) -> Array:
    """Mark `per_class` of the labels (N,) of each class, of those marked in `among`. Raises ValueRangeError."""
    taken = np.zeros(len(labels), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        own = np.flatnonzero(among & (labels == label))
        if len(own) < per_class:
            expected = f"{per_class} images of each class to train on"
            raise ValueRangeError(
                op="split", expected=expected, got=f"{len(own)} of {classes[label]}", remedy="train on fewer"
            )
        taken[rng.choice(own, per_class, replace=False)] = True
    return taken


def draw(labels: Array, fraction: float, seed: int) -> Array:
    """Mark round(fraction N) of the labels (N,), of each class in proportion.

    Every class is put in random order; the image at place i of n gets the rank (i + 1/2) / n, and
    the lowest ranks of all classes are taken.
    """
    count = round(fraction * len(labels)) if 0 < fraction < 1 else 0
    if not 1 <= count < len(labels):
        raise ValueRangeError(
            op="split", expected="a fraction that leaves images both to train on and to test on",
            got=f"{fraction:g} of {len(labels)} images", remedy="give more images, or another fraction",
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
