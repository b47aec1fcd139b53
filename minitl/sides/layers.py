"""Layers that only side modules have."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from minitl import ops
from minitl.errors import ValueRangeError
from minitl.layers import Layer
from minitl.layers.conv import drawn
from minitl.records import Var
from minitl.tape import Tape

CHANNELS_PER_GROUP = 8  # of a group norm, as in TinyTL's and Rep-Net's source


class AvgPool(Layer):
    """Average pool over windows of `window` x `window`."""

    def __init__(self, path: str, role: str, window: int) -> None:
        super().__init__(path, role)
        self.window = window

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Pool x (N, H, W, C)."""
        return self._run(tape, ops.avg_pool, x, attrs={"window": self.window})


class StandardisedConv(Layer):
    """A grouped convolution without bias, its filters standardised."""

    trainable = ("weight",)

    def __init__(
        self,
        path: str,
        role: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        rng: np.random.Generator,
        dtype: str,
    ) -> None:
        if inputs % groups or outputs % groups:
            expected = f"channels that {groups} groups divide"
            raise ValueRangeError(layer=path, expected=expected, got=f"{inputs} in and {outputs} out")
        shape = (outputs, inputs // groups, kernel, kernel)
        super().__init__(path, role, {"weight": drawn(shape, rng, dtype)})
        self.attrs = {"groups": groups, "stride": stride}

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Convolve x (N, H, W, C)."""
        return self._run(tape, ops.standardised_conv, x, self.parameters["weight"], attrs=self.attrs)


class IntegerConv(StandardisedConv):
    """A grouped convolution in 8-bit integers, its filters as they are; `rule` may compute it bit by bit."""

    op = ops.conv_int

    @property
    def rules(self) -> tuple[str, ...]:
        """The op's."""
        return self.op.rules

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Convolve x (N, H, W, C); the tape's seed and the path decide how gradients are rounded."""
        attrs = {**self.attrs, "seed": (tape.seed, crc32(self.path.encode()))}
        return self._run(tape, self.op, x, self.parameters["weight"], attrs=attrs)


class GroupNorm(Layer):
    """Group norm with 8 channels per group; its scale begins at `scale`."""

    trainable = ("weight", "bias")

    def __init__(self, path: str, role: str, channels: int, *, scale: float = 1.0, dtype: str) -> None:
        if channels % CHANNELS_PER_GROUP:
            expected = f"a multiple of {CHANNELS_PER_GROUP} channels, for group norms"
            raise ValueRangeError(layer=path, expected=expected, got=str(channels))
        super().__init__(path, role, {"weight": np.full(channels, scale, dtype), "bias": np.zeros(channels, dtype)})
        self.groups = channels // CHANNELS_PER_GROUP

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Normalise x (N, H, W, C)."""
        return self._run(tape, ops.group_norm, x, *self.parameters.values(), attrs={"groups": self.groups})


class UpTo(Layer):
    """Bilinear interpolation to the size of another map."""

    def __call__(self, tape: Tape, x: Var, like: Var) -> Var:
        """x (N, H, W, C) at the height and width of `like`; x itself where they agree."""
        target = like.shape[1:3]
        return x if x.shape[1:3] == target else self._run(tape, ops.bilinear_up, x, attrs={"size": target})


class Combine(Layer):
    """Two maps into one by an op without parameters: `add`, `multiply` or `add_channels`."""

    op: ops.Op

    def __init__(self, path: str, role: str, op: ops.Op) -> None:
        super().__init__(path, role)
        self.op = op

    def __call__(self, tape: Tape, a: Var, b: Var) -> Var:
        """The op's output for a and b."""
        return self._run(tape, self.op, a, b)
