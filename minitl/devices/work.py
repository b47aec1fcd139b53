"""One pass of one layer, as a device sees it, and what a device answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minitl.arrays import Shape

KNOWN, BOUND, UNKNOWN = "known", "bound", "unknown"
FORWARD, GRAD_INPUT, GRAD_WEIGHT, RECOMPUTE = PASSES = "forward", "grad_input", "grad_weight", "recompute"


@dataclass(frozen=True)
class Work:
    """What one pass (`part`, one of PASSES) of a layer does.

    `op` is what is computed: for a convolution with its norm folded in, the convolution. `x`, `weight` and
    `y` are the shapes of its input, its weight (empty where it has none) and its output. `bytes` counts each
    array that enters or leaves the pass once; `flops` follow minitl's standard convention.
    """

    layer: str
    op: str
    part: str
    x: Shape
    weight: Shape
    y: Shape
    stride: int
    macs: int
    flops: int
    bytes: int
    trains_weight: bool


@dataclass(frozen=True)
class Answer:
    """Seconds that are known, or at least so many (a bound), or unknown; `reason` says why it is not known.

    `counts` are what can be said without a unit of time, by name.
    """

    kind: str
    seconds: float | None = None
    reason: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


def unknown_time(reason: str, counts: Mapping[str, int] | None = None) -> Answer:
    """No seconds, and why."""
    return Answer(UNKNOWN, None, reason, counts or {})
