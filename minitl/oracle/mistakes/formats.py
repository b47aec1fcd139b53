"""Rounding to formats of low precision that NumPy lacks or has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl.arrays import Array


def _float16(a: Array) -> Array:
    with np.errstate(over="ignore"):
        return a.astype(np.float16).astype(np.float64)


def _to_bits(kept: int) -> Callable[[Array], Array]:
    """Round float32 numbers to that many explicit bits of fraction, to nearest even."""
    dropped = 23 - kept
    half, mask = np.uint32((1 << (dropped - 1)) - 1), np.uint32(~((1 << dropped) - 1) & 0xFFFFFFFF)

    def rounded(a: Array) -> Array:
        words = np.asarray(a, np.float32, order="C").view(np.uint32)
        odd = (words >> np.uint32(dropped)) & np.uint32(1)
        return ((words + half + odd) & mask).view(np.float32).astype(np.float64)

    return rounded


def _cut(a: Array) -> Array:
    """bfloat16 as the upper half of a float32."""
    words = np.asarray(a, np.float32, order="C").view(np.uint32) & np.uint32(0xFFFF0000)
    return words.view(np.float32).astype(np.float64)


FORMATS: dict[str, Callable[[Array], Array]] = {  # those of fewer bits first: their numbers are numbers of the others
    "bfloat16": _to_bits(7),
    "bfloat16, truncated": _cut,
    "float16": _float16,
    "TF32": _to_bits(10),
}
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "bfloat16, truncated": 2.0**-7, "TF32": 2.0**-11}
