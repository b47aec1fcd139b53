"""A single inverted residual block, to look at by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minitl.blocks import BlockSpec, InvertedResidual
from minitl.errors import unknown
from minitl.layers import Layer
from minitl.networks.model import Model
from minitl.networks.network import build
from minitl.records import Var
from minitl.tape import Tape

PAPER = {
    "in_channels": 96,
    "expanded_channels": 576,
    "out_channels": 96,
    "kernel": 5,
    "stride": 1,
    "activation": "hard_swish",
    "se_channels": 144,
    "expand": True,
}


class SingleBlock(Model):
    """One block; what a step differentiates is the sum of its outputs.

    Layers are named `expand`, `expand_norm`, ..., `se.fc1`, ..., `project_norm`, `add`. With
    `input_grad` the gradient of its input is computed too, as in the midst of a tuned network.
    """

    def __init__(self, block: InvertedResidual, dtype: str, *, input_grad: bool = False) -> None:
        super().__init__("irb", [block], input_channels=block.spec.in_channels, dtype=dtype)
        self.block, self.input_grad = block, input_grad

    def run(self, tape: Tape, x: Var) -> Var:
        """The block's output (N, H', W', out_channels)."""
        return self.run_block(tape, self.block, tape.variable(x) if self.input_grad else x)

    def loss(self, tape: Tape, output: Var, labels: Any) -> Var:
        """The output itself: `Tape.backward` starts from ones, so this is the gradient of its sum."""
        return output

    def layers(self) -> Iterator[Layer]:
        """The block's layers in the order they run."""
        return self.block.layers()


def irb(
    *,
    eps: float = 1e-3,
    momentum: float = 0.01,
    dtype: str = "float32",
    seed: int = 0,
    input_grad: bool = False,
    **attrs: Any,
) -> SingleBlock:
    """A block with the attributes of `BlockSpec`.

    The default is a block of MobileNetV3-Small's top, which the paper's Figure 1 takes apart:
    96 -> 576 -> 96 channels, 5x5, Hard-Swish, squeeze-and-excite with 144.
    """
    for name in attrs:
        if name not in PAPER:
            raise unknown("attribute", name, PAPER, layer="irb")
    spec = BlockSpec(**{**PAPER, **attrs})
    make = build(seed, dtype, eps=eps, momentum=momentum)
    return SingleBlock(InvertedResidual(spec, str, make), dtype, input_grad=input_grad)
