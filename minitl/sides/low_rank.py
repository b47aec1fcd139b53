"""A low-rank adaptor beside a 1x1 convolution or a linear layer, whose own weight is (mostly) frozen.

    y + (x A^T) B^T          A (r, I) at random, B (O, r) from 0: attached, it changes nothing

LoRA (Hu et al., ICLR 2022, arXiv:2106.09685); its factor alpha / r is 1. Training A keeps x, as training the
layer's own weight would; training B keeps x A^T, r numbers per position. A late adaptor (SLoPe, ICLR 2025,
arXiv:2405.16325) does not run in training until its factors train.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

import numpy as np

from minitl import ops
from minitl.arrays import Array
from minitl.checks import expect_count
from minitl.errors import RuleError
from minitl.layers import Layer, Product
from minitl.records import Var
from minitl.sides.layers import Combine
from minitl.tape import Tape


class Factor(Layer):
    """A product at every position, without bias: weight (O, I, 1, 1), or (O, I) for vectors."""

    trainable = ("weight",)

    def __init__(self, path: str, role: str, weight: Array) -> None:
        super().__init__(path, role, {"weight": weight})
        self.op: ops.Op = ops.linear if weight.ndim == 2 else ops.pointwise_conv

    def ran(self, tape: Tape) -> None:
        """Take note that it is there: a late adaptor's factors are held also where they do not run."""
        tape.idle += self.parameters.values()

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Map x (..., I) to (..., O)."""
        return self._run(tape, self.op, x, self.parameters["weight"])


class LowRank:
    """The adaptor of `layer`, of rank `rank`.

    Raises RuleError for a layer that is no product at every position, ValueRangeError unless the rank is from 1 to
    its smaller side.
    """

    def __init__(self, layer: Product, rank: int) -> None:
        outputs, inputs, *taps = layer.parameters["weight"].value.shape
        if layer.op not in (ops.pointwise_conv, ops.linear):
            problem = "a low-rank adaptor stands beside a 1x1 convolution or a linear layer"
            raise RuleError(problem, layer=layer.path, op=layer.op.name, remedy="give this one rank 0")
        self.rank = expect_count("a rank", rank, most=min(inputs, outputs), layer=layer.path)
        dtype = layer.parameters["weight"].dtype
        a = np.random.default_rng(crc32(layer.path.encode())).standard_normal((rank, inputs, *taps)) / np.sqrt(inputs)
        self.down = Factor(f"{layer.path}.down", "low_rank_down", a.astype(dtype))
        self.up = Factor(f"{layer.path}.up", "low_rank_up", np.zeros((outputs, rank, *taps), dtype))
        self.add = Combine(f"{layer.path}.add", "low_rank_add", ops.add)
        for part in self.layers():
            part.height = layer.height

    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""
        yield from (self.down, self.up, self.add)

    def __call__(self, tape: Tape, x: Var, y: Var) -> Var:
        """The layer's output y, and the adaptor's."""
        if tape.training and not self.up.parameters["weight"].trained:
            self.down.ran(tape)
            self.up.ran(tape)
            return y
        return self.add(tape, y, self.up(tape, self.down(tape, x)))
