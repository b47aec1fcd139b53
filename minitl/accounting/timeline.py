"""A step's memory moment by moment: every array with what it is for, when it comes and when it goes.

The step runs on a shadow tape (see `trace`) that writes down when each stand-in is made and let go
of. A *moment* is that of one array's coming: the arrays alive at moment k are those made by then
and not yet let go of. Between two moments memory only falls, so the largest of them is the peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, groupby
from typing import Any

from minitl.accounting.arena import Arena, Buffer, place
from minitl.accounting.moment import BACKWARD, KINDS, Moment, StepBuffer
from minitl.accounting.predict import FEW, check_model, shadow_step
from minitl.accounting.trace import Applied, Label, Trace, TracingTape
from minitl.checks import expect_count
from minitl.networks.model import Model
from minitl.parameters import Parameter

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass(frozen=True)
class Timeline:
    """All arrays of a step, and the bytes alive at each moment."""

    buffers: tuple[StepBuffer, ...]
    moments: tuple[Moment, ...]

    @property
    def peak(self) -> Moment:
        """The first moment at which the most bytes are alive."""
        return max(self.moments, key=lambda moment: moment.bytes)

    @property
    def turn(self) -> Moment:
        """Where backward begins: all that it needs is kept by then."""
        return next(moment for moment in self.moments if moment.going == BACKWARD)

    def alive(self, at: int) -> list[StepBuffer]:
        """What is alive at a moment, the largest first."""
        return sorted((b for b in self.buffers if b.first <= at <= b.last), key=lambda b: -b.bytes)

    def by_kind(self) -> dict[str, list[int]]:
        """The bytes alive at each moment, by the kinds that there are."""
        change = {kind: [0] * (len(self.moments) + 1) for kind in KINDS if any(b.kind == kind for b in self.buffers)}
        for b in self.buffers:
            change[b.kind][b.first] += b.bytes
            change[b.kind][b.last + 1] -= b.bytes
        return {kind: list(accumulate(steps[:-1])) for kind, steps in change.items()}

    def extremes(self) -> list[Moment]:
        """Of each visit to a layer, the moments with the fewest and the most bytes alive; and where backward begins."""
        found = {self.turn}
        for _, moments in groupby(self.moments, key=lambda m: m.where):
            visit = list(moments)
            found |= {min(visit, key=lambda m: m.bytes), max(visit, key=lambda m: m.bytes)}
        return sorted(found)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        peak = self.peak
        return {
            "peak_bytes": peak.bytes,
            "peak_at": peak.at,
            "peak_layer": peak.layer,
            "peak_pass": peak.going,
            "alive_at_peak": [asdict(b) for b in self.alive(peak.at)],
            "moments": [{"at": m.at, "bytes": m.bytes, "layer": m.layer, "pass": m.going} for m in self.moments],
        }


def timeline(
    model: Model, *, batch: int, resolution: int, optimizer_slots: int = 0, apply: bool = False, pixels: bool = False
) -> Timeline:
    """A step of the model on `batch` images, moment by moment, from shapes alone; options as for `predict`.

    Its peak is `predict(...).totals.peak_bytes`.
    """
    check_model(model)
    slots = expect_count("optimizer_slots", optimizer_slots, least=0, layer=model.name)
    trace = Trace()
    tape = TracingTape(trace)
    shadow_step(model, tape, batch, resolution, Applied(trace) if apply else None, pixels=pixels)
    trace.spans[1].label = Label("images", "labels", "", "in the caller's hand")
    resident = list(_resident(tape.parameters, slots, len(trace.moments) - 1))
    always = sum(b.bytes for b in resident)
    moments = tuple(m._replace(bytes=m.bytes + always) for m in trace.moments)
    return Timeline((*resident, *trace.buffers(moments)), moments)


def arena(
    model: Model,
    *,
    batch: int,
    resolution: int,
    optimizer_slots: int = 0,
    apply: bool = False,
    pixels: bool = False,
    alignment: int = ALIGNMENT,
) -> Arena:
    """Every array of a step at a fixed offset in one block of memory; options as for `predict`.

    Parameters, statistics, optimizer state, images, kept buffers, maps, gradients and scratch, and a
    room for the small vectors that calls use in passing. The block's lower bound is the step's peak.
    """
    step: dict[str, Any] = {"optimizer_slots": optimizer_slots, "apply": apply, "pixels": pixels}
    line = timeline(model, batch=batch, resolution=resolution, **step)
    plain = [Buffer(b.name, b.layer, b.bytes, b.first, b.last, b.kind) for b in line.buffers]
    return place(plain, alignment=alignment)


def _resident(parameters: Iterable[Parameter], slots: int, end: int) -> Iterator[StepBuffer]:
    """What is held between steps, and the room for small vectors."""
    for p in parameters:
        kind = "statistics" if p.statistic else "parameters"
        held = "trained" if p.trained else "frozen"
        why = "running statistic" if p.statistic else "a rule's, from step to step" if p.state else held
        layer = p.name.rpartition(".")[0]
        made = StepBuffer(p.name, layer, p.nbytes, 0, end, kind, why, p.value.shape, p.dtype, "the end")
        yield made
        for slot in range(slots if p.trained else 0):
            yield replace(made, name=f"{p.name}.optimizer{slot}", kind="optimizer state", why="kept between steps")
    why = "vectors of a number per channel, and addresses handed to kernels"
    yield StepBuffer("vectors", "", FEW, 0, end, "scratch", why, (FEW,), "uint8", "the end")
