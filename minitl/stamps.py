"""Stamps: whether an array was changed behind the tape's back.

Backward reads parameters, and the images where the stem is trained, a second time. If somebody
changes them in between (steps the weights, holds them in 8 bits, fills the batch's buffer anew),
its gradients are wrong, and nothing would say so: NumPy's arrays carry no version. So the tape
takes a stamp of each in the forward pass and compares before backward: shape, dtype, and a hash
of some 64 elements evenly spread, or of all where there are few. That takes about 1 us per array,
whatever its size.

Seen are: another shape or dtype; a change of all elements, or of a share f of them at random (but
for a chance of (1 - f)^64); a change of any `spacing(n)` elements in a row, n / 64 at most, so of any
one image of a batch of up to 64. Not seen are: a change that meets none of the elements looked at; one
that was taken back before; one during backward, by another thread; and a change of what the tape
alone holds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minitl.arrays import Array, Shape
from minitl.errors import UsageError

LOOKS = 64  # elements of an array that are looked at, at least, where it has as many


Stamp = tuple[Shape, np.dtype[Any], int]  # what an array looked like: shape, dtype, hash


def stamp(array: Array) -> Stamp:
    """What `array`, of any strides, looks like now."""
    elements = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return array.shape, array.dtype, hash(elements[:: spacing(array.size)].tobytes())


@lru_cache(maxsize=4096)
def spacing(size: int) -> int:
    """How far apart the elements are that are looked at: odd, so that they fall on channels of all numbers."""
    return max(1, (size // LOOKS - 1) | 1)


def expect_unchanged(what: str, array: Array, before: Stamp) -> None:
    """Raise UsageError where `array` no longer looks as it did; `what` names it (a parameter, the images)."""
    if stamp(array) != before:
        raise UsageError(
            f"{what} changed between the forward pass and backward",
            op="backward",
            remedy="walk back before changing it, or run the forward pass again; give a reused buffer as a copy",
        )
