"""Mistakes in pools over windows and in interpolation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from minitl.arrays import Array
from minitl.oracle.mistakes.tape import Call, Mistake

POOL, UP = ("avg_pool",), ("bilinear_up",)
Places = Callable[[int, int], Array]  # where each line of the target lies among those of the source


def mistakes() -> Iterator[Mistake]:
    """All of them."""
    text = "the largest of a window where the mean is right"
    yield Mistake(text, POOL, lambda c: _windows(c).max(axis=(2, 4)), _to_largest)
    yield Mistake("the gradient goes to the first position of each window only", POOL, None, _to_first)
    for text, places in {
        "corners aligned: they are not (align_corners=False)": _corners_aligned,
        "half pixels forgotten: lines stand at (i + 1/2) H / Ho - 1/2": lambda n, m: np.arange(m) * n / m,
        "nearest neighbour where interpolation is right": lambda n, m: np.floor(np.arange(m) * n / m),
        "extrapolated at the border: positions below 0 are held at 0": lambda n, m: (np.arange(m) + 0.5) * n / m - 0.5,
    }.items():
        yield Mistake(text, UP, partial(_interpolated, places), partial(_interpolated_back, places))


def _windows(c: Call) -> Array:
    """(N, Ho, s, Wo, s, C)."""
    s, (n, h, w, channels) = c.attrs["window"], c.x.shape
    return c.x[:, : h // s * s, : w // s * s].reshape(n, h // s, s, w // s, s, channels)


def _to_largest(c: Call, gy: Array) -> tuple[Array]:
    windows = _windows(c)
    chosen = windows == windows.max(axis=(2, 4), keepdims=True)
    return (_spread(c, chosen * gy[:, :, None, :, None]),)


def _to_first(c: Call, gy: Array) -> tuple[Array]:
    first = np.zeros(_windows(c).shape)
    first[:, :, 0, :, 0] = gy
    return (_spread(c, first),)


def _spread(c: Call, windows: Array) -> Array:
    """The inverse of `_windows`, with zeros in rows and columns that fill none."""
    n, high, s, wide, _, channels = windows.shape
    gx = np.zeros(c.x.shape)
    gx[:, : high * s, : wide * s] = windows.reshape(n, high * s, wide * s, channels)
    return gx


def _corners_aligned(n: int, m: int) -> Array:
    return np.arange(m) * ((n - 1) / max(m - 1, 1))


def _shares(places: Places, source: int, target: int) -> Array:
    shares = np.zeros((target, source))
    for i, t in enumerate(places(source, target)):
        low = min(max(int(np.floor(t)), 0), source - 1)
        high = min(low + 1, source - 1)
        shares[i, low] += 1 - (t - low)
        shares[i, high] += t - low
    return shares


def _interpolated(places: Places, c: Call) -> Array:
    rows, columns = (_shares(places, n, m) for n, m in zip(c.x.shape[1:3], c.attrs["size"], strict=True))
    return np.asarray(np.einsum("ih,nhwc,jw->nijc", rows, c.x, columns))


def _interpolated_back(places: Places, c: Call, gy: Array) -> tuple[Array]:
    rows, columns = (_shares(places, n, m) for n, m in zip(c.x.shape[1:3], c.attrs["size"], strict=True))
    return (np.asarray(np.einsum("ih,nijc,jw->nhwc", rows, gy, columns)),)
