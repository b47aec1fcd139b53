"""How long a training step takes on a device, as far as anybody published: known, bounded, or unknown with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minitl.accounting.predict import predict, shadow_step
from minitl.accounting.table import Table, table
from minitl.accounting.traffic import passes
from minitl.devices import Device, answer
from minitl.devices.work import BOUND, KNOWN, UNKNOWN, Answer, Work
from minitl.networks.model import Model
from minitl.shadow import ShadowTape


@dataclass(frozen=True)
class Row:
    """One pass of one layer and what the device says about it; `joules` only for known seconds at a published power."""

    work: Work
    answer: Answer
    joules: float | None

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return {
            "layer": self.work.layer,
            "op": self.work.op,
            "pass": self.work.part,
            "kind": self.answer.kind,
            "seconds": self.answer.seconds,
            "joules": self.joules,
            "reason": self.answer.reason,
            "flops": self.work.flops,
            "bytes": self.work.bytes,
            "counts": dict(self.answer.counts),
        }


@dataclass(frozen=True)
class Estimate:
    """A step on a device. Seconds are summed by kind; known and bound ones are never added up to one number.

    `fits` is whether the step's peak fits the device's memory, None where its size is not published.
    """

    device: Device
    rows: tuple[Row, ...]
    peak_bytes: int

    def seconds(self, kind: str) -> float:
        """The sum over the rows of one kind."""
        return sum(row.answer.seconds or 0.0 for row in self.rows if row.answer.kind == kind)

    @property
    def joules(self) -> float | None:
        """Energy of the known rows; None where there are none or no power is published."""
        known = [row.joules for row in self.rows if row.joules is not None]
        return sum(known) if known else None

    @property
    def counts(self) -> dict[str, int]:
        """The sums of what is counted."""
        total: Counter[str] = Counter()
        for row in self.rows:
            total.update(row.answer.counts)
        return dict(total)

    @property
    def fits(self) -> bool | None:
        """Whether the peak fits the memory."""
        memory = self.device.value("memory_bytes")
        return None if memory is None else self.peak_bytes <= memory

    def to_json(self) -> dict[str, Any]:
        """Rows and totals."""
        return {"device": self.device.name, "rows": [row.to_json() for row in self.rows], **self.totals()}

    def totals(self) -> dict[str, Any]:
        """Seconds by kind, energy of the known rows, counts, and whether the peak fits."""
        return {
            "known_seconds": self.seconds(KNOWN),
            "bound_seconds": self.seconds(BOUND),
            "unknown_rows": sum(row.answer.kind == UNKNOWN for row in self.rows),
            "known_joules": self.joules,
            "counts": self.counts,
            "peak_bytes": self.peak_bytes,
            "memory_bytes": self.device.value("memory_bytes"),
            "fits": self.fits,
        }


def estimate(
    model: Model,
    device: Device,
    *,
    batch: int,
    resolution: int,
    optimizer_slots: int = 0,
    apply: bool = False,
    pixels: bool = False,
) -> Estimate:
    """What is known about one training step of `model` (a method applied) on `device`, from shapes alone."""
    step: dict[str, Any] = {"optimizer_slots": optimizer_slots, "apply": apply, "pixels": pixels}
    totals = predict(model, batch=batch, resolution=resolution, **step).totals
    peak = totals.peak_bytes
    assert peak is not None
    tape = ShadowTape(fused=False)
    shadow_step(model, tape, batch, resolution, None, pixels=pixels)
    return Estimate(device, tuple(_row(device, work) for work in passes(tape.records)), peak)


def rows_table(rows: tuple[Row, ...]) -> Table:
    """One line per layer and pass."""
    header = ("layer", "op", "pass", "kind", "ms", "mJ", "FLOPs", "bytes moved", "why, or what is counted")
    dropped = ("mJ", "bytes moved", "FLOPs", "op")
    return table(header, [_line(row) for row in rows], right=(4, 5, 6, 7), optional=dropped)


def blocks_table(rows: tuple[Row, ...], part: Callable[[Work], str]) -> Table:
    """One line per part of the network, seconds by kind."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(part(row.work), []).append(row)
    body = []
    for name, own in parts.items():
        spent = {k: sum(row.answer.seconds or 0.0 for row in own if row.answer.kind == k) for k in (KNOWN, BOUND)}
        times = (f"{1e3 * seconds:,.4g}" if seconds else "" for seconds in spent.values())
        unknown = sum(row.answer.kind == UNKNOWN for row in own)
        work = (sum(row.work.flops for row in own), sum(row.work.bytes for row in own))
        body.append((name, *times, f"{unknown} of {len(own)}", *(f"{count:,}" for count in work)))
    header = ("part", "known ms", ">= ms", "rows unknown", "FLOPs", "bytes moved")
    return table(header, body, right=range(1, len(header)), optional=("bytes moved", "FLOPs"))


def totals_text(found: Estimate) -> str:
    """`known 2.1 s + at least 0.3 s + 120 rows unknown`, the energy of the known part, counts, and whether it fits."""
    lines = ["time: " + time_text(found)]
    if found.joules is not None:
        lines.append(f"energy of the known part: {found.joules:.4g} J")
    lines += [f"{name.replace('_', ' ')}: {count:,}" for name, count in found.counts.items()]
    memory = found.device.value("memory_bytes")
    verdict = (
        "its memory is not published" if memory is None else f"{'fits' if found.fits else 'does not fit'} {memory:,.0f}"
    )
    return "\n".join([*lines, f"peak of a step: {found.peak_bytes:,} bytes; {verdict}"])


def time_text(found: Estimate) -> str:
    """The known part, the part that takes at least so long, and how many rows are unknown: never one number."""
    parts = [f"known {found.seconds(KNOWN):.4g} s"] if found.seconds(KNOWN) else []
    parts += [f"at least {found.seconds(BOUND):.4g} s"] if found.seconds(BOUND) else []
    return " + ".join([*parts, f"{found.totals()['unknown_rows']} of {len(found.rows)} rows unknown"])


def _row(device: Device, work: Work) -> Row:
    said, watts = answer(device, work), device.value("watts")
    known = said.seconds if said.kind == KNOWN else None
    return Row(work, said, None if known is None or watts is None else known * watts)


def _line(row: Row) -> tuple[str, ...]:
    said, work = row.answer, row.work
    sign = ">= " if said.kind == BOUND else ""
    told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in said.counts.items())
    return (
        work.layer,
        work.op,
        work.part,
        said.kind,
        "" if said.seconds is None else f"{sign}{said.seconds * 1e3:,.4g}",
        "" if row.joules is None else f"{row.joules * 1e3:,.4g}",
        f"{work.flops:,}",
        f"{work.bytes:,}",
        "; ".join(filter(None, (told, said.reason))),
    )
