"""Which layers of a training step run op by op, and why: as the step itself decides it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minitl.networks.model import Model
from minitl.records import Var
from minitl.shadow import Meter, ShadowTape
from minitl.tape import Tape

ALONE = "only a convolution with a norm after it is fused"


def op_by_op(model: Model, *, batch: int, resolution: int) -> dict[str, str]:
    """The layers that a step on such images runs op by op, below the loss, with the reason, in the order they run.

    All others are parts of fused runs.
    """
    tape = _Watch()
    model(tape, tape.phantom((batch, resolution, resolution, model.input_channels), model.dtype))
    return tape.found


class _Watch(ShadowTape):
    """Notes the ops that are run by themselves, with what was said of their layers before."""

    def __init__(self, meter: Meter | None = None, *, training: bool = True, fused: bool = True) -> None:
        super().__init__(meter, training=training, fused=fused)
        self.found: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def _fresh(self) -> Tape:
        inner = _Watch(self.meter, fused=self.fused)
        inner.found, inner.reasons = self.found, self.reasons
        return inner

    def not_fused(self, layers: Sequence[str], why: str) -> None:
        """Remember it for those of the layers that are then run by themselves."""
        self.reasons.update(dict.fromkeys(layers, why))

    def run(self, *arguments: Any, layer: str, **options: Any) -> Var:
        """Note the layer, and run its op."""
        self.found[layer] = self.reasons.get(layer, ALONE)
        return super().run(*arguments, layer=layer, **options)
