"""Where the taps of a k x k convolution fall: sizes, padding, and which of them lie on the map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Index = tuple[slice, slice, slice]  # samples, rows, columns


class Window(NamedTuple):
    """A convolution's geometry: kernel k, stride s, padding above and left of the map, sizes of maps in and out."""

    k: int
    s: int
    top: int
    before: int
    height: int
    width: int
    out_height: int
    out_width: int

    @property
    def bottom(self) -> int:
        """How far the last output row's taps reach below the map; negative where they stay above its end."""
        return (self.out_height - 1) * self.s + self.k - self.top - self.height

    @property
    def after(self) -> int:
        """How far the last output column's taps reach beyond the map's right edge."""
        return (self.out_width - 1) * self.s + self.k - self.before - self.width

    def taps(self) -> list[tuple[int, int, Index, Index]]:
        """Of each tap (u, v), ascending: the outputs it gives something to, and the pixels it reads for them."""
        found = []
        for u, v in np.ndindex(self.k, self.k):
            i, h = _meet(u - self.top, self.s, self.height, self.out_height)
            j, w = _meet(v - self.before, self.s, self.width, self.out_width)
            found.append((u, v, (slice(None), i, j), (slice(None), h, w)))
        return found


def _meet(shift: int, stride: int, size: int, outputs: int) -> tuple[slice, slice]:
    """Output i reads i stride + shift: the outputs for which that lies in range(size), and what they read."""
    first = max(0, -(shift // stride))
    stop = max(first, min(outputs, (size - 1 - shift) // stride + 1))
    start = first * stride + shift
    return slice(first, stop), slice(start, start + (stop - first - 1) * stride + 1 if stop > first else start, stride)
