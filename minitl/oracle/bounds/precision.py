"""Floating-point formats, and one call of an op with the bounds of what it reads and makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from minitl.arrays import Array
from minitl.ops.op import Attrs, Op
from minitl.saved import Saved

Errors = list[Array | None]


@dataclass(frozen=True)
class Precision:
    """A floating-point format: its short name, NumPy's dtype and unit roundoff."""

    name: str
    dtype: str
    u: float

    def gamma(self, count: Array | float) -> Array:
        """K u / (1 - K u); 2 K u where that makes no sense, which still bounds a sum (Jeannerod & Rump 2013)."""
        ku = np.asarray(count, np.float64) * self.u
        return np.asarray(ku / (1 - np.minimum(ku, 0.5)))

    def rounding(self, count: Array | float, size: Array) -> Array:
        """Error of `count` roundings of terms whose absolute values sum to `size`; none where all are 0."""
        tiny = float(np.finfo(np.dtype(self.dtype)).smallest_subnormal)
        return np.asarray(np.where(size > 0, self.gamma(count) * size + 4 * np.asarray(count) * tiny, 0.0))

    def entering(self, value: Array) -> Array:
        """Error of rounding an input to this format."""
        if value.dtype.kind != "f":
            return np.zeros(value.shape)
        return np.asarray(np.abs(value - value.astype(self.dtype).astype(np.float64)))


PRECISIONS = {
    "f16": Precision("f16", "float16", 2.0**-11),
    "f32": Precision("f32", "float32", 2.0**-24),
    "f64": Precision("f64", "float64", 2.0**-53),
}
BY_DTYPE = {p.dtype: p for p in PRECISIONS.values()}


@dataclass(eq=False)
class Call:
    """One op that ran in float64: what it read and made, and the bounds of all of it."""

    op: Op
    arrays: tuple[Array, ...]
    errors: tuple[Array, ...]
    attrs: Attrs
    needs: Sequence[bool]
    rule: str
    y: Array
    saved: Saved
    y_error: Array = field(default_factory=lambda: np.zeros(()))
    kept: dict[str, Array] = field(default_factory=dict)  # bounds of buffers that forward made
    updated: dict[str, Array] = field(default_factory=dict)  # bounds of the running statistics
