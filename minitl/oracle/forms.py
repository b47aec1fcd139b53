"""How a case's tensors are laid out: maps, weights and labels in the form that the case's user has them.

Everything is computed in one form: maps (N, H, W, C), weights (out, in / groups, k, k), labels (N,).
A case is stored, and answered, in another one if it was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.oracle.case import Case, from_layout, is_map, to_layout

WEIGHTS: dict[str, dict[int, tuple[int, ...]]] = {  # axes of the stored array, by rank
    "oihw": {4: (0, 1, 2, 3), 2: (0, 1)},
    "ohwi": {4: (0, 2, 3, 1), 2: (0, 1)},
    "hwio": {4: (2, 3, 1, 0), 2: (1, 0)},
}
WEIGHT_AXES = ("out", "in", "row", "column")  # of a weight as it is computed with


@dataclass(frozen=True)
class Form:
    """Layout of maps (nhwc, nchw), order of weights (oihw, ohwi, hwio), and labels as indices or one-hot rows."""

    layout: str = "nhwc"
    weights: str = "oihw"
    classes: int = 0  # of one-hot labels; 0: indices

    @classmethod
    def of(cls, attrs: Mapping[str, Any], layout: str, weights: str) -> Form:
        """The form of a case with these attributes."""
        return cls(layout, weights, int(attrs["channels"]) if attrs.get("labels") == "onehot" else 0)

    def stored(self, name: str, array: Array) -> Array:
        """The tensor of that name as the case holds it."""
        if axes := self._axes(name, array):
            return array.transpose(axes).copy()
        if name == "input.labels" and self.classes:
            return np.asarray(np.eye(self.classes)[array])
        return to_layout(array, self.layout) if is_map(name) else array

    def taken(self, name: str, array: Array) -> Array:
        """The inverse of `stored`."""
        if axes := self._axes(name, array):
            return array.transpose(np.argsort(axes)).copy()
        if name == "input.labels" and self.classes:
            return np.asarray(array.argmax(axis=1))
        return from_layout(array, self.layout) if is_map(name) else array

    def weight_axes(self, rank: int) -> list[str]:
        """What the axes of a weight of that rank are called, in the order of the case."""
        return [WEIGHT_AXES[i] for i in WEIGHTS[self.weights][rank]]

    def _axes(self, name: str, array: Array) -> tuple[int, ...] | None:
        base = name.split(".", 2)[2] if name.startswith("tol.") else name
        weight = base.startswith(("param.", "grad_param.", "param_after.")) and base.endswith("weight")
        return WEIGHTS[self.weights].get(array.ndim) if weight else None


def form_of(case: Case) -> Form:
    """The form a case is in."""
    return Form.of(case.attrs, case.layout, case.conventions.get("weights", "oihw"))
