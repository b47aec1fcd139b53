"""How a step's time and memory grow with the batch and with the resolution."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from minitl.accounting import predict
from minitl.bench.cases import NETWORKS, Case, Tuning
from minitl.bench.peak import peak_bytes, predicted_growth
from minitl.bench.timing import burst_of, interleave
from minitl.training.progress import Bar

TUNING = Tuning("mobiletl", 5)
BATCHES = tuple(1 << i for i in range(7))
RESOLUTIONS = tuple(range(96, 321, 32))


@dataclass(frozen=True)
class Size:
    """A step at one batch size and resolution."""

    network: str
    method: str
    batch: int
    resolution: int
    ms: float
    ms_per_image: float
    peak_bytes: int | None
    predicted_growth_bytes: int
    predicted_peak_bytes: int | None
    kept_bytes: int


def sizes() -> list[Case]:
    """Every batch size at the network's resolution, then every other resolution at its batch size."""
    network = NETWORKS[0]
    by_batch = [replace(network, batch=n) for n in BATCHES]
    by_resolution = [replace(network, resolution=r) for r in RESOLUTIONS]
    return by_batch + [case for case in by_resolution if case not in by_batch]


def scale(cases: Sequence[Case], *, seconds: float, count: int, peak: bool, shown: Bar) -> Iterator[Size]:
    """Each of them measured, `seconds` of timing in all."""
    times = interleave({case: burst_of(case.problem(TUNING).step) for case in cases}, seconds)
    for case in cases:
        grown = peak_bytes(case, TUNING, None, count) if peak else None
        size = _size(case, 1e3 * statistics.median(times[case]), grown)
        shown.advance(f"batch {case.batch}, {case.resolution} px: {size.ms:.1f} ms")
        yield size


def _size(case: Case, ms: float, grown: int | None) -> Size:
    totals = predict(case.model(TUNING), batch=case.batch, resolution=case.resolution).totals
    return Size(
        network=case.network,
        method=case.label(TUNING),
        batch=case.batch,
        resolution=case.resolution,
        ms=ms,
        ms_per_image=ms / case.batch,
        peak_bytes=grown,
        predicted_growth_bytes=predicted_growth(case, TUNING),
        predicted_peak_bytes=totals.peak_bytes,
        kept_bytes=totals.kept_bytes,
    )
