"""What a training step differentiates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minitl import ops
from minitl.records import Var
from minitl.tape import Tape


def cross_entropy(
    tape: Tape, logits: Var, labels: Any, *, smoothing: float = 0.0, weights: Sequence[float] | None = None
) -> Var:
    """Softmax cross-entropy of logits (N, K) and integer labels (N,), the mean over the batch.

    `smoothing` is the share of a label that is spread over all classes; `weights` (K,) weigh the
    classes, and the mean. See `ops.cross_entropy`.
    """
    attrs: dict[str, Any] = {"smoothing": smoothing} if smoothing else {}
    if weights is not None:
        attrs["weights"] = tuple(map(float, weights))
    return tape.run(ops.cross_entropy, logits, tape.labels(labels), layer="loss", role="loss", attrs=attrs)
