"""A tape that runs on sizes instead of arrays, to tell in advance what a step will hold.

The same network code and the same walk back run on it; only the arrays are replaced by
phantoms, which know their shape and dtype and are counted while they live. Python frees a
phantom at the very line where it would free the array, so the highest count is the peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.ops.op import Attrs, Gradients, Op
from minitl.saved import Saved
from minitl.tape import Record, Tape, Var


class Meter:
    """Bytes alive now, and the most there ever were."""

    def __init__(self) -> None:
        self.live = self.peak = 0

    def add(self, count: int) -> None:
        """`count` more bytes are alive (fewer, if negative)."""
        self.live += count
        self.peak = max(self.peak, self.live)

    def touch(self, workspace: int) -> None:
        """`workspace` bytes more were alive for a moment."""
        self.peak = max(self.peak, self.live + workspace)


class Phantom:
    """Stands for an array of that shape and dtype, and counts its bytes for as long as it lives."""

    def __init__(self, shape: Shape, dtype: str, meter: Meter) -> None:
        self.shape, self.dtype, self.meter = shape, np.dtype(dtype), meter
        self.nbytes = nbytes(shape, dtype)
        meter.add(self.nbytes)

    def __del__(self) -> None:
        self.meter.add(-self.nbytes)


class ShadowTape(Tape):
    """Runs a training step from shapes alone. `meter` holds the bytes alive; `holdings` what backward would need."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter()

    def images(self, images: Any, dtype: str) -> Var:
        """A batch of images of that shape (N, H, W, 3)."""
        return Var(self._phantom(images, dtype))

    def labels(self, labels: Any) -> Var:
        """Labels of that shape (N,)."""
        return Var(self._phantom(labels, "int64"))

    def _forward(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> tuple[Array, Saved]:
        dtype = arrays[0].dtype.name
        cost = op.cost([a.shape for a in arrays], dtype, attrs=attrs, needs=needs, rule=rule)
        y, saved = self._phantom(cost.output, dtype), Saved()
        for kept in cost.kept:
            array = arrays[kept.source] if kept.source is not None else self._packed(kept.nbytes, kept.dtype)
            saved.keep(kept.tensor, array, kept.needed_for, codes=(kept.shape, kept.bits))
        self.meter.touch(cost.forward_workspace)
        return y, saved

    def _backward(self, record: Record, gy: Array) -> Gradients:
        cost = record.cost
        results = tuple(
            (gy if cost.passes_gradient else self._phantom(shape, record.dtype)) if needed else None
            for shape, needed in zip(record.shapes, record.needs, strict=True)
        )
        self.meter.touch(cost.backward_workspace)
        return results

    def _ones_like(self, loss: Array) -> Array:
        return self._phantom(loss.shape, loss.dtype.name)

    def _accumulate(self, pending: dict[int, Array], source: int, gradient: Array, gy: Array) -> None:
        if source in pending and gradient is gy:
            gradient = self._phantom(gy.shape, gy.dtype.name)
        pending[source] = gradient

    def _phantom(self, shape: Shape, dtype: str) -> Array:
        return cast(Array, Phantom(shape, dtype, self.meter))

    def _packed(self, count: int, dtype: str) -> Array:
        return self._phantom((count // np.dtype(dtype).itemsize,), dtype)
