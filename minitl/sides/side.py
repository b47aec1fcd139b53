"""A side module: something that runs beside a block, from the block's input, and joins its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minitl.layers import Layer
from minitl.records import Var
from minitl.tape import Tape


@dataclass(frozen=True)
class SideSpec:
    """Where a module stands and what it joins: its path, channels in and out, and what its layers are built with.

    `stride` is its block's. `reads_image` says that it reads the network's images, not the block's input.
    """

    path: str
    inputs: int
    outputs: int
    stride: int
    kernel: int
    rng: np.random.Generator
    dtype: str
    reads_image: bool = False


class Side(ABC):
    """What stands beside a block."""

    def __init__(self, spec: SideSpec) -> None:
        self.spec = spec

    @abstractmethod
    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""

    @abstractmethod
    def __call__(self, tape: Tape, x: Var, y: Var) -> Var:
        """The block's output y, joined by what the module makes of x."""
