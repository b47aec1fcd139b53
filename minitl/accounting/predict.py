"""Predict, from shapes alone, what a training step will hold; and measure what a real one does."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minitl.accounting.array_memory import counting
from minitl.accounting.conventions import STANDARD
from minitl.accounting.ledger import Ledger, ledger
from minitl.arrays import Array
from minitl.checks import expect_count, expect_flag
from minitl.errors import UsageError, ValueRangeError, brief
from minitl.gradients import Apply
from minitl.networks.model import Model
from minitl.parameters import Parameter
from minitl.pixels import PIXELS
from minitl.shadow import ShadowTape
from minitl.step import forward_backward
from minitl.tape import Tape

MOST = {"batch": 2**31 - 1, "resolution": 2**14}  # a prediction counts the bands of rows of one image
FEW = 8 << 10  # bytes: room for vectors of a number per channel, and addresses handed to kernels, alive at the peak


def predict(
    model: Model,
    *,
    batch: int,
    resolution: int,
    optimizer_slots: int = 0,
    apply: bool = False,
    pixels: bool = False,
    convention: str = STANDARD,
) -> Ledger:
    """The ledger of a step on `batch` images of `resolution` x `resolution`, without computing anything.

    The rows equal those a real tape would hold. `totals.peak_bytes` replays the step's
    lifetimes; `optimizer_slots` is how many numbers the optimizer keeps for each trained
    parameter (SGD with momentum 1, Adam 2). With `apply`, gradients are applied as they come, and
    `totals.gradient_bytes` is that of the largest. With `pixels`, images are uint8 (see
    `Network.normalisation`, without which UsageError is raised).
    """
    check_model(model)
    optimizer_slots = expect_count("optimizer_slots", optimizer_slots, least=0, layer=model.name)
    tape = ShadowTape()
    shadow_step(model, tape, batch, resolution, LetGo() if apply else None, pixels=pixels)
    found = ledger(tape, optimizer_slots=optimizer_slots, apply=apply, convention=convention)
    totals = replace(found.totals, peak_bytes=found.totals.resident_bytes + tape.meter.peak + FEW)
    return replace(found, totals=totals)


def shadow_step(
    model: Model, tape: ShadowTape, batch: int, resolution: int, apply: Apply | None, *, pixels: bool
) -> None:
    """Run a step on a shadow tape; raises ValueRangeError for what is no batch or no resolution."""
    dtype = images_dtype(model, pixels=pixels)
    for name, value in (("batch", batch), ("resolution", resolution)):
        if expect_count(name, value, layer=model.name) > MOST[name]:
            raise ValueRangeError(layer=model.name, expected=f"{name} of at most {MOST[name]}", got=brief(value))
    batch, resolution = int(batch), int(resolution)
    images = tape.phantom((batch, resolution, resolution, model.input_channels), dtype)
    labels = tape.phantom((batch,), "int64")
    forward_backward(model, tape, images, labels, apply=apply)


def images_dtype(model: Model, *, pixels: bool) -> str:
    """The dtype of a step's images; raises UsageError where the model takes none in pixels."""
    if expect_flag("pixels", pixels, op="predict") and model.normalisation is None:
        remedy = "set a network's normalisation (a single block takes none), or predict for images in numbers"
        raise UsageError("no normalisation is known for images in pixels", layer=model.name, remedy=remedy)
    return PIXELS if pixels else model.dtype


def check_model(model: Model) -> None:
    """Raise UsageError unless it is a network or a block."""
    if not isinstance(model, Model):
        raise UsageError(op="predict", expected="a network or a block", got=brief(repr(model)))


@dataclass(frozen=True)
class Measured:
    """What a real step held: by the tape's own account, and as counted where NumPy allocates (bytes).

    `held_bytes` and `traced_bytes` are the buffers kept for backward, when inputs, logits and
    labels are gone; they must be equal. `traced_peak_bytes` counts all of NumPy's arrays, vectors and scratch
    memory included; the predicted peak is at most a few kilobytes above it, never below.
    """

    held_bytes: int
    traced_bytes: int
    predicted_peak_bytes: int
    traced_peak_bytes: int


def measure(
    model: Model, *, batch: int, resolution: int, optimizer_slots: int = 0, apply: bool = False, pixels: bool = False
) -> Measured:
    """Run a step on random images (on a copy of the model) and count its memory (see `array_memory`).

    Raises UsageError where the step does not fit into memory.
    """
    check_model(model)
    model = copy.deepcopy(model)
    step: dict[str, Any] = {"optimizer_slots": optimizer_slots, "apply": apply, "pixels": pixels}
    predicted = predict(model, batch=batch, resolution=resolution, **step).totals
    activity = _StepOnNoise(model, int(batch), int(resolution), apply=apply, pixels=pixels)
    try:
        activity.whole_step()  # compiles the kernels and records their calls, which are not the step's memory
    except MemoryError:
        raise UsageError(
            f"a step of {predicted.peak_bytes:,} bytes does not fit into memory",
            layer=model.name,
            remedy="measure a smaller batch or resolution, or predict",
        ) from None
    gc.collect()
    with counting() as memory:
        tape = activity.forward()
        gc.collect()
        held, traced = ledger(tape).kept_bytes, memory.live
        del tape
        gc.collect()
        memory.reset_peak()
        before = memory.live
        activity.whole_step()
        in_step = memory.peak - before
    assert predicted.peak_bytes is not None
    return Measured(held, traced, predicted.peak_bytes, predicted.resident_bytes + in_step)


class LetGo:
    """Stands for an optimizer that takes gradients as they come, and changes nothing."""

    def begin(self, parameters: Iterable[Parameter]) -> None:
        """Nothing to prepare."""

    def apply(self, parameter: Parameter, gradient: Array) -> None:
        """Let the gradient go."""


class _StepOnNoise:
    """A step whose images and labels live only as long as it does."""

    def __init__(self, model: Model, batch: int, resolution: int, *, apply: bool, pixels: bool) -> None:
        self.model, self.batch, self.resolution, self.apply, self.pixels = model, batch, resolution, apply, pixels

    def forward(self) -> Tape:
        """The tape of a forward pass, and nothing else left alive."""
        tape = Tape()
        self.model.loss(tape, self.model(tape, self._images()), self._labels())
        return tape

    def whole_step(self) -> None:
        """Forward and backward; gradients are let go of, at the end or as they come."""
        apply = LetGo() if self.apply else None
        forward_backward(self.model, Tape(), self._images(), self._labels(), apply=apply)

    def _images(self) -> Array:
        shape = (self.batch, self.resolution, self.resolution, self.model.input_channels)
        rng = np.random.default_rng(0)
        if self.pixels:
            return rng.integers(0, 256, shape, np.uint8)
        return rng.standard_normal(shape, np.dtype(self.model.dtype).type)

    def _labels(self) -> Array:
        return np.zeros(self.batch, np.int64)
