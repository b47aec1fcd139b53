"""Bring a band of a map into the cache before tiles go over it.

A tile is some columns of several rows, and the next one others: an order that a processor does not foresee, so that it
waits for memory at every line, also at one that is only written. What is read in the order in which it lies comes two
to four times as fast (on the machines measured), and tiles then find it in the cache. Nothing is computed from it.
"""

from __future__ import annotations

from minitl.kernels.compile import Lazily
from minitl.kernels.rules import BATCH
from minitl.kernels.tasks import Place, Recorder, Span

compiled = Lazily("minitl.kernels.compiled.fetch")


def goes_in_order(norm: int, *, keeps: bool) -> bool:
    """Whether a pass up (see `elementwise`) takes one row after another: where its maps are cold, or it writes two.

    A batch norm's come when all samples are done; `keeps` says that the activation's input is kept beside its output.
    """
    return norm == BATCH or keeps


def fetch_call(record: Recorder, span: Span, nbytes: int, place: Place) -> None:
    """Record the reading of positions `span` of the map at a place, each of which takes `nbytes` bytes."""
    record.call(compiled.fetch(), place + span[0] * nbytes, (span[1] - span[0]) * nbytes)
