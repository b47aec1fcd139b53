"""What an op makes in passing, as a list of shapes and dtypes: the op makes all of it at once, `cost` adds it up.

So there is one list, and what is foreseen is what is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, nbytes

Room = Sequence[tuple[Shape, str]]


def made(room: Room) -> list[Array]:
    """Uninitialised arrays of these shapes and dtypes."""
    return [np.empty(shape, dtype) for shape, dtype in room]


def room_bytes(room: Room) -> int:
    """What they take together."""
    return sum(nbytes(shape, dtype) for shape, dtype in room)


def gradient_bytes(shapes: Sequence[Shape], dtype: str, needs: Sequence[bool]) -> int:
    """What the gradients that are asked for take."""
    return sum(nbytes(shape, dtype) for shape, need in zip(shapes, needs, strict=True) if need)
