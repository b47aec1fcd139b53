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
from minitl.fused.plan import Work
from minitl.ops.op import Attrs, Gradients, Op, dtype_of
from minitl.parameters import Parameter
from minitl.pixels import Normalisation
from minitl.records import OpRecord, Take, Var
from minitl.saved import OUTPUT, Saved
from minitl.tape import K, Tape


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

    def born(self, phantom: Phantom) -> None:
        """A stand-in comes to life."""
        self.add(phantom.nbytes)

    def died(self, phantom: Phantom) -> None:
        """It is let go of."""
        self.add(-phantom.nbytes)


class Phantom:
    """Stands for an array of that shape and dtype, and counts its bytes for as long as it lives."""

    meter: Meter | None = None  # of one that Ctrl-C kept from being counted

    def __init__(self, shape: Shape, dtype: str, meter: Meter) -> None:
        self.shape, self.dtype, self.nbytes = shape, np.dtype(dtype), nbytes(shape, dtype)
        meter.born(self)
        self.meter = meter

    def __del__(self) -> None:
        if self.meter is not None:
            self.meter.died(self)


class ShadowTape(Tape):
    """Runs a training step from shapes alone. `meter` holds the bytes alive; `holdings` what backward would need."""

    computes = False

    def __init__(self, meter: Meter | None = None, *, training: bool = True, fused: bool = True) -> None:
        super().__init__(training=training, fused=fused)
        self.meter = meter or Meter()
        self.recording = True

    def _fresh(self) -> Tape:
        return ShadowTape(self.meter, fused=self.fused)

    def images(self, images: Any, channels: int, dtype: str, by: Normalisation | None = None) -> Var:
        """Take in a phantom of images (N, H, W, 3)."""
        return Var(images)

    def labels(self, labels: Any) -> Var:
        """Take in a phantom of labels (N,), copied as the real ones are."""
        return Var(self.phantom(labels.shape, "int64"))

    def _dense(self, array: Array) -> Array:
        return array

    def _read(self, parameter: Parameter) -> Array:
        quantised = parameter.scale is not None
        return self.phantom(parameter.value.shape, parameter.dtype) if quantised else parameter.value

    def _forward(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> tuple[Array, Saved]:
        dtype = dtype_of(arrays)
        cost = op.cost([a.shape for a in arrays], dtype, attrs=attrs, needs=needs, rule=rule)
        y, saved = self.phantom(cost.output, dtype), Saved()
        for kept in cost.kept:
            if kept.source is None:
                array = self.phantom((kept.nbytes // np.dtype(kept.dtype).itemsize,), kept.dtype)
            else:
                array = y if kept.source == OUTPUT else arrays[kept.source]
            saved.keep(kept.tensor, array, kept.needed_for, codes=(kept.shape, kept.bits))
        self.meter.touch(cost.forward_workspace)
        return y, saved

    def _backward(self, record: OpRecord, gy: Array) -> Gradients:
        cost = record.cost
        params = [self._read(p) for p in record.parameters]
        results = tuple(
            (gy if cost.passes_gradient else self.phantom(shape, record.dtype)) if needed else None
            for shape, needed in zip(record.shapes, record.needs, strict=True)
        )
        self.meter.touch(cost.backward_workspace)
        del params
        return results

    def _work(self, take: Take | None = None) -> Work:
        return Work(self.phantom, take, dry=True)

    def _ones_like(self, loss: Array) -> Array:
        return self.phantom(loss.shape, loss.dtype.name)

    def _accumulate(self, pending: dict[K, Array], source: K, gradient: Array, gy: Array | None = None) -> None:
        if source in pending and gradient is gy:
            gradient = self.phantom(gradient.shape, gradient.dtype.name)
        pending[source] = gradient

    def phantom(self, shape: Shape, dtype: str) -> Array:
        """A stand-in for an array, counted on this tape's meter."""
        return cast(Array, Phantom(shape, dtype, self.meter))
