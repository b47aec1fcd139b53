"""What all readers give: labelled images of any size, read one at a time when they are used."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from minitl.arrays import Array
from minitl.errors import DataError

MOST_CLASSES = 65_536  # labels are file contents: one wrong number must not make a list of 2^63 names


class Source(ABC):
    """N labelled images. Only labels and names are in memory; an image stays uint8 until it is a network's input.

    `labels` (N,) int64 counts into `classes`. `held_out` marks the images that the data themselves
    set aside for testing, (N,) bool, or is None where they do not. `natural` says whether these are
    photographs, whose mirror image is as likely as they are (a digit's is not).
    """

    natural = False

    def __init__(self, labels: Array, classes: Sequence[str], held_out: Array | None = None) -> None:
        self.labels, self.classes, self.held_out = labels, tuple(classes), held_out

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> Array:
        """Image number `index`, uint8 (H, W, 3). Raises DataError. May be called by several threads."""

    def check(self, tell: Callable[[], None]) -> None:  # noqa: B027 - records of one size are there, or it is no file
        """Raise DataError naming the images that cannot be read, where that may be so; `tell` is called after each."""

    def names(self) -> Sequence[str]:
        """What tells the images apart, where more than their number does."""
        return ()

    @property
    def digest(self) -> str:
        """SHA-256 of labels, classes and names: whether a training run that is resumed still has its data."""
        listed = json.dumps([self.classes, list(self.names())]).encode()
        return hashlib.sha256(self.labels.astype("<i8").tobytes() + listed).hexdigest()


def check_labels(labels: Array, classes: Sequence[str] | None, where: str) -> tuple[Array, tuple[str, ...]]:
    """Labels (N,) as int64, and the names of the classes, by default `0`, `1`, ... Raises DataError."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(layer=where, expected="integer labels (N,)", got=f"{labels.dtype.name} {labels.shape}")
    if len(labels) == 0:
        raise DataError("holds no image", layer=where)
    count = MOST_CLASSES if classes is None else len(classes)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= count:
        raise DataError(layer=where, expected=f"labels from 0 to {count - 1}", got=f"{low} to {high}")
    named = tuple(map(str, range(high + 1)) if classes is None else classes)
    if twice := [name for name, times in Counter(named).items() if times > 1]:
        raise DataError(layer=where, expected="classes of different names", got=f"several {', '.join(twice[:8])}")
    return labels.astype(np.int64), named
