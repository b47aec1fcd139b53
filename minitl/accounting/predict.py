"""Predict, from shapes alone, what a training step will hold; and measure what a real one does."""

from __future__ import annotations

import copy
import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from minitl.accounting.conventions import STANDARD
from minitl.accounting.ledger import Ledger, ledger
from minitl.arrays import Array
from minitl.checks import expect_count
from minitl.errors import UsageError, ValueRangeError, brief
from minitl.networks.network import Model
from minitl.shadow import ShadowTape
from minitl.step import forward_backward
from minitl.tape import Tape

MOST = 2**31 - 1  # images in a batch, or pixels of a side


def predict(
    model: Model, *, batch: int, resolution: int, optimizer_slots: int = 0, convention: str = STANDARD
) -> Ledger:
    """The ledger of a step on `batch` images of `resolution` x `resolution`, without computing anything.

    The rows equal those a real tape would hold. `totals.peak_bytes` replays the step's
    lifetimes; `optimizer_slots` is how many numbers the optimizer keeps for each trained
    parameter (SGD with momentum 1, Adam 2).
    """
    check_model(model)
    for name, value in (("batch", batch), ("resolution", resolution)):
        if expect_count(name, value, layer=model.name) > MOST:
            raise ValueRangeError(layer=model.name, expected=f"{name} of at most {MOST}", got=brief(value))
    batch, resolution = int(batch), int(resolution)
    optimizer_slots = expect_count("optimizer_slots", optimizer_slots, least=0, layer=model.name)
    tape = ShadowTape()
    images = tape.phantom((batch, resolution, resolution, model.input_channels), model.dtype)
    forward_backward(model, tape, images, tape.phantom((batch,), "int64"))
    found = ledger(tape, optimizer_slots=optimizer_slots, convention=convention)
    totals = replace(found.totals, peak_bytes=found.totals.resident_bytes + tape.meter.peak)
    return replace(found, totals=totals)


def check_model(model: Model) -> None:
    """Raise UsageError unless it is a network or a block."""
    if not isinstance(model, Model):
        raise UsageError(op="predict", expected="a network or a block", got=brief(repr(model)))


@dataclass(frozen=True)
class Measured:
    """What a real step held: by the tape's own account, and as Python's allocator traced it (bytes).

    `held_bytes` and `traced_bytes` are the buffers kept for backward, when inputs, logits and
    labels are gone; they must be equal. The two peaks differ by what is not counted in advance:
    vectors of one number a channel, and Python's own objects.
    """

    held_bytes: int
    traced_bytes: int
    predicted_peak_bytes: int
    traced_peak_bytes: int


def measure(model: Model, *, batch: int, resolution: int, optimizer_slots: int = 0) -> Measured:
    """Run a step on random images (on a copy of the model) and trace its memory.

    Raises UsageError while `tracemalloc` is tracing for somebody else, whose figures it would
    spoil, and where the step does not fit into memory.
    """
    if tracemalloc.is_tracing():
        raise UsageError("measure: tracemalloc is tracing already", remedy="call tracemalloc.stop() first")
    check_model(model)
    model = copy.deepcopy(model)
    predicted = predict(model, batch=batch, resolution=resolution, optimizer_slots=optimizer_slots).totals
    activity = _StepOnNoise(model, int(batch), int(resolution))
    try:
        activity.whole_step()  # compiles the kernels and starts the threads, which are not the step's memory
    except MemoryError:
        raise UsageError(
            f"a step of {predicted.peak_bytes:,} bytes does not fit into memory",
            layer=model.name,
            remedy="measure a smaller batch or resolution, or predict",
        ) from None
    with _tracing():
        tape = activity.forward()
        held, traced = ledger(tape).kept_bytes, _numpy_bytes()
        del tape
        gc.collect()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        activity.whole_step()
        in_step = tracemalloc.get_traced_memory()[1] - before
    assert predicted.peak_bytes is not None
    return Measured(held, traced, predicted.peak_bytes, predicted.resident_bytes + in_step)


class _StepOnNoise:
    """A step whose images and labels live only as long as it does."""

    def __init__(self, model: Model, batch: int, resolution: int) -> None:
        self.model, self.batch, self.resolution = model, batch, resolution

    def forward(self) -> Tape:
        """The tape of a forward pass, and nothing else left alive."""
        tape = Tape()
        self.model.loss(tape, self.model(tape, self._images()), self._labels())
        return tape

    def whole_step(self) -> None:
        """Forward and backward; gradients are dropped."""
        forward_backward(self.model, Tape(), self._images(), self._labels())

    def _images(self) -> Array:
        shape = (self.batch, self.resolution, self.resolution, self.model.input_channels)
        return np.random.default_rng(0).standard_normal(shape, np.dtype(self.model.dtype).type)

    def _labels(self) -> Array:
        return np.zeros(self.batch, np.int64)


@contextmanager
def _tracing() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _numpy_bytes() -> int:
    """Live bytes of NumPy arrays, as traced in NumPy's own domain."""
    gc.collect()
    domain = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([domain]).traces)
