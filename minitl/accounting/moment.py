"""What there is to say of an array of a step, and of a moment of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from minitl.accounting.arena import Buffer
from minitl.arrays import Shape

FORWARD, BACKWARD = "forward", "backward"
KINDS = (
    "parameters", "statistics", "optimizer state", "images", "kept", "activations", "activation gradients",
    "parameter gradients", "packed weights", "scratch",
)  # fmt: skip
RESIDENT = ("parameters", "statistics", "optimizer state")


@dataclass(frozen=True)
class StepBuffer(Buffer):
    """An array of a step: its kind (one of KINDS), why it is there, and where it is let go of."""

    why: str = ""
    shape: Shape = ()
    dtype: str = ""
    until: str = ""

    @property
    def always(self) -> bool:
        """Whether it is held between steps, too."""
        return self.kind in RESIDENT


class Moment(NamedTuple):
    """The bytes alive when an array had just been made, in the forward or backward pass of a layer."""

    at: int
    bytes: int
    layer: str
    going: str

    @property
    def where(self) -> str:
        """`backward of features.9`."""
        return f"{self.going} of {self.layer}"
