"""A rule that keeps x in another form and restores it for the weight's gradient: what its file defines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array, Shape
from minitl.ops.room import Room
from minitl.saved import Kept, Saved


class Encoding(NamedTuple):
    """How x is kept and restored; the rooms are what either takes in passing, by shape and dtype of x."""

    keep: Callable[[Saved, Array, Sequence[int]], None]  # of x, with the seed of what is drawn
    restore: Callable[[Saved, np.dtype[np.floating]], Array]
    kept: Callable[[Shape, str], tuple[Kept, ...]]  # the same that `keep` keeps, foreseen
    encoding_room: Callable[[Shape, str], Room]
    decoding_room: Callable[[Shape, str], Room]
