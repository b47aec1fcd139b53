"""Where the taps of a k x k convolution fall: sizes, padding, and which of them lie on the map."""

from __future__ import annotations

from typing import NamedTuple


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

    def rows(self, u: int) -> tuple[slice, slice]:
        """Which output rows tap row u gives something to, and the input rows it reads for them."""
        return _meet(u - self.top, self.s, self.height, self.out_height)

    def columns(self, v: int) -> tuple[slice, slice]:
        """The same of columns."""
        return _meet(v - self.before, self.s, self.width, self.out_width)


def _meet(shift: int, stride: int, size: int, outputs: int) -> tuple[slice, slice]:
    """Output i reads i stride + shift: the outputs for which that lies in range(size), and what they read."""
    first = max(0, -(shift // stride))
    stop = max(first, min(outputs, (size - 1 - shift) // stride + 1))
    start = first * stride + shift
    return slice(first, stop), slice(start, start + (stop - first - 1) * stride + 1 if stop > first else start, stride)
