"""Blocks: a convolution with its norm and activation, squeeze-and-excite, the inverted residual block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minitl.checks import as_count, expect_flag
from minitl.errors import ValueRangeError, brief
from minitl.layers import Activation, Add, Conv, Layer, Norm, Pool, Scale
from minitl.records import Var
from minitl.segment import Segment
from minitl.tape import Tape


@dataclass(frozen=True)
class Build:
    """What every layer of a network is built with."""

    rng: np.random.Generator
    dtype: str
    eps: float
    momentum: float


@dataclass(frozen=True)
class ConvSpec:
    """A convolution followed by a norm and perhaps an activation; `kind` is how its roles begin."""

    kind: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    activation: str = ""


class ConvNorm(Segment):
    """Convolution, norm and activation."""

    def __init__(self, spec: ConvSpec, paths: tuple[str, str, str], build: Build) -> None:
        super().__init__()
        conv_role = "head_conv" if spec.kind == "head" else spec.kind
        self.conv = Conv(
            paths[0], conv_role, spec.inputs, spec.outputs,
            kernel=spec.kernel, stride=spec.stride, depthwise=spec.depthwise, rng=build.rng, dtype=build.dtype,
        )  # fmt: skip
        self.norm = Norm(
            paths[1], f"{spec.kind}_norm", spec.outputs, eps=build.eps, momentum=build.momentum, dtype=build.dtype
        )
        self.act = Activation(paths[2], f"{spec.kind}_act", spec.activation) if spec.activation else None

    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""
        yield from (*self.conv.parts(), self.norm)
        if self.act:
            yield self.act

    def compose(self, tape: Tape, x: Var) -> Var:
        """Run x (N, H, W, C) through, op by op."""
        x = self.norm(tape, self.conv(tape, x))
        return self.act(tape, x) if self.act else x

    def after_conv(self, tape: Tape, x: Var) -> Var:
        """Norm and activation, of a convolution that was run by itself."""
        x = self.norm(tape, x)
        return self.act(tape, x) if self.act else x


class SqueezeExcite:
    """Squeeze-and-excite (Hu et al. 2018, arXiv:1709.01507), by default as in MobileNetV3.

    gate = hard_sigmoid(W2 relu(W1 mean(x) + b1) + b2) in (N, 1, 1, C),   y = gate x
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        name: Callable[[str], str],
        build: Build,
        *,
        activation: str = "relu",
        gate: str = "hard_sigmoid",
    ) -> None:
        self.pool = Pool(name("se.pool"), keepdims=True)
        self.fc1 = Conv(name("se.fc1"), "se_fc1", channels, squeezed, bias=True, rng=build.rng, dtype=build.dtype)
        self.act = Activation(name("se.act"), "se_act", activation)
        self.fc2 = Conv(name("se.fc2"), "se_fc2", squeezed, channels, bias=True, rng=build.rng, dtype=build.dtype)
        self.gate = Activation(name("se.gate"), "se_gate", gate)
        self.scale = Scale(name("se.scale"), "se_scale")

    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""
        yield from (self.pool, self.fc1, self.act, self.fc2, self.gate, self.scale)

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Run x (N, H, W, C) through."""
        return self.scale(tape, x, self.gate_of(tape, x))

    def gate_of(self, tape: Tape, x: Var) -> Var:
        """The gate (N, 1, 1, C) for x."""
        squeezed = self.act(tape, self.fc1(tape, self.pool(tape, x)))
        return self.gate(tape, self.fc2(tape, squeezed))


MOST_WEIGHTS = 1 << 28  # 1 GiB in float32; MobileNets have at most some 2^23
SIZES = {  # of a BlockSpec, and how small each may be
    "in_channels": 1,
    "expanded_channels": 1,
    "out_channels": 1,
    "kernel": 1,
    "stride": 1,
    "se_channels": 0,
}


@dataclass(frozen=True)
class BlockSpec:
    """An inverted residual block: channels in, between and out; kernel, stride and activation of its depthwise part.

    `residual` adds the input to the output where their shapes agree.
    """

    in_channels: int
    expanded_channels: int
    out_channels: int
    kernel: int
    stride: int
    activation: str
    se_channels: int = 0
    expand: bool = True
    se_activation: str = "relu"
    se_gate: str = "hard_sigmoid"
    residual: bool = True

    def __post_init__(self) -> None:
        """Check the sizes, and make them Python's integers."""
        for name, least in SIZES.items():
            value = as_count(getattr(self, name), least)
            if value is None:
                raise self._error(name, f"a whole number, at least {least}", getattr(self, name))
            object.__setattr__(self, name, value)
        object.__setattr__(self, "expand", expect_flag("expand", self.expand, layer="irb"))
        if not isinstance(self.activation, str):
            raise self._error("activation", "a name", self.activation)
        if self.weights > MOST_WEIGHTS:
            raise ValueRangeError(layer="irb", expected=f"at most {MOST_WEIGHTS:,} weights", got=f"{self.weights:,}")
        if self.kernel % 2 == 0:
            raise self._error("kernel", "an odd number", self.kernel)
        if self.stride > 2:
            raise self._error("stride", "1 or 2", self.stride)
        if not self.expand and self.in_channels != self.expanded_channels:
            raise self._error("expanded_channels", "those coming in, without expand", self.expanded_channels)

    @property
    def weights(self) -> int:
        """Weights of its convolutions."""
        outer = self.out_channels + self.in_channels * self.expand
        return self.expanded_channels * (outer + self.kernel**2 + 2 * self.se_channels)

    @staticmethod
    def _error(name: str, expected: str, got: object) -> ValueRangeError:
        return ValueRangeError(layer="irb", expected=f"{name} to be {expected}", got=brief(got))


class InvertedResidual(Segment):
    """The inverted residual block (Sandler et al. 2018, arXiv:1801.04381).

    x -> 1x1 expand, norm, act -> k x k depthwise, norm, act -> [SE] -> 1x1 project, norm -> (+ x),
    the residual where the shapes of input and output agree. `name` maps each part (`expand`,
    `expand_norm`, ..., `se.fc1`, ..., `add`) to its path in the network.
    """

    def __init__(self, spec: BlockSpec, name: Callable[[str], str], build: Build) -> None:
        super().__init__()
        wide = spec.expanded_channels

        def part(conv: ConvSpec) -> ConvNorm:
            return ConvNorm(conv, (name(conv.kind), name(f"{conv.kind}_norm"), name(f"{conv.kind}_act")), build)

        self.spec = spec
        self.expand = None
        if spec.expand:
            self.expand = part(ConvSpec("expand", spec.in_channels, wide, activation=spec.activation))
        self.depthwise = part(
            ConvSpec("depthwise", wide, wide, spec.kernel, spec.stride, depthwise=True, activation=spec.activation)
        )
        self.se = self._squeeze_excite(name, build) if spec.se_channels else None
        self.project = part(ConvSpec("project", wide, spec.out_channels))
        residual = spec.residual and spec.stride == 1 and spec.in_channels == spec.out_channels
        self.add = Add(name("add"), "add") if residual else None

    def _squeeze_excite(self, name: Callable[[str], str], build: Build) -> SqueezeExcite:
        s = self.spec
        gates = {"activation": s.se_activation, "gate": s.se_gate}
        return SqueezeExcite(s.expanded_channels, s.se_channels, name, build, **gates)

    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""
        for part in (self.expand, self.depthwise, self.se, self.project):
            if part:
                yield from part.layers()
        if self.add:
            yield self.add

    def compose(self, tape: Tape, x: Var) -> Var:
        """Run x (N, H, W, C) through, op by op where its parts do not run as one either."""
        h = self._project(tape, self._widen(tape, x))
        return self.add(tape, h, x) if self.add else h

    def feeds(self) -> Iterator[tuple[Activation, Conv]]:
        """Each inner activation that a convolution follows, whose input is then its output."""
        after = (self.depthwise.conv, None if self.se else self.project.conv)
        for part, conv in zip((self.expand, self.depthwise), after, strict=True):
            if part and part.act and conv:
                yield part.act, conv

    def _widen(self, tape: Tape, x: Var) -> Var:
        """Expand, then depthwise; with `recompute`, keep x instead of the depthwise convolution's input."""
        if self.expand and self.expand.conv.plan.recompute:
            conv = self.expand.conv
            x = tape.checkpoint(self._widen_conv, x, layer=conv.path, role=conv.role)
            return self.depthwise.after_conv(tape, x)
        return self.depthwise(tape, self.expand(tape, x) if self.expand else x)

    def _widen_conv(self, tape: Tape, x: Var) -> Var:
        assert self.expand
        return self.depthwise.conv(tape, self.expand(tape, x))

    def _project(self, tape: Tape, h: Var) -> Var:
        """Squeeze-and-excite, then project; with the gate `folded`, both in one."""
        if self.se and self.se.scale.plan.rule == "folded" and tape.training:
            h = self.project.conv.gated(tape, h, self.se.gate_of(tape, h))
            return self.project.after_conv(tape, h)
        return self.project(tape, self.se(tape, h) if self.se else h)
