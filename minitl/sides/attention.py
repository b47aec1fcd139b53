"""An attention adaptor beside a block F, additive or multiplicative, after the idea of DA3.

    additive         y = F(x) + A(x)        gA = gy                       F is not needed
    multiplicative   y = F(x) A(x)          gA = gy F,  gF = gy A         F is kept, and A if a gradient passes below

DA3 (Yang, Rakin & Fan, CVPR-W 2022, arXiv:2012.01362) rests on this difference; the layers of its adaptor are
not public, so these are minitl's own:

    A(x) = up(conv1x1(relu(norm(conv3x3(pool2(x)))))) + fc2(relu(fc1(mean(x))))

The last layers begin at 0 (the multiplicative one's bias at 1), so attached it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import numpy as np

from minitl import ops
from minitl.layers import Activation, Conv, Layer, Pool
from minitl.records import Var
from minitl.sides.layers import AvgPool, Combine, GroupNorm, StandardisedConv, UpTo
from minitl.sides.side import Side, SideSpec
from minitl.tape import Tape


class Build(TypedDict):
    """What a layer with weights is built with."""

    rng: np.random.Generator
    dtype: str


class Attention(Side):
    """The adaptor; `middle` are the channels of its map before the 1x1 convolution, `squeezed` those of its vector."""

    def __init__(self, spec: SideSpec, *, middle: int, squeezed: int, multiplies: bool) -> None:
        super().__init__(spec)
        path, build = spec.path, Build(rng=spec.rng, dtype=spec.dtype)
        self.pool = AvgPool(f"{path}.pool", "side_pool", 2)
        self.conv = StandardisedConv(f"{path}.conv", "side_conv", spec.inputs, middle, kernel=3, groups=2, **build)
        self.norm = GroupNorm(f"{path}.norm", "side_norm", middle, dtype=spec.dtype)
        self.act = Activation(f"{path}.act", "side_act", "relu")
        self.project = Conv(f"{path}.project", "side_project", middle, spec.outputs, **build)
        self.up = UpTo(f"{path}.up", "side_up")
        self.mean = Pool(f"{path}.mean", keepdims=True)
        self.fc1 = Conv(f"{path}.fc1", "side_fc1", spec.inputs, squeezed, bias=True, **build)
        self.fc_act = Activation(f"{path}.fc_act", "side_fc_act", "relu")
        self.fc2 = Conv(f"{path}.fc2", "side_fc2", squeezed, spec.outputs, bias=True, **build)
        self.sum = Combine(f"{path}.sum", "side_sum", ops.add_channels)
        self.join = Combine(f"{path}.join", "side_join", ops.multiply if multiplies else ops.add)
        for last in (self.project, self.fc2):
            last.parameters["weight"].value[...] = 0
        self.fc2.parameters["bias"].value[...] = int(multiplies)

    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""
        yield from (self.pool, self.conv, self.norm, self.act, self.project, self.up)
        yield from (self.mean, self.fc1, self.fc_act, self.fc2, self.sum, self.join)

    def __call__(self, tape: Tape, x: Var, y: Var) -> Var:
        """The block's output y, plus or times A(x)."""
        h = self.act(tape, self.norm(tape, self.conv(tape, self.pool(tape, x))))
        h = self.up(tape, self.project(tape, h), y)
        c = self.fc2(tape, self.fc_act(tape, self.fc1(tape, self.mean(tape, x))))
        return self.join(tape, y, self.sum(tape, h, c))
