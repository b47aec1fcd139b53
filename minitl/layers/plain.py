"""Layers without parameters."""

from __future__ import annotations

from zlib import crc32

from minitl import ops
from minitl.errors import lookup
from minitl.layers.layer import Layer
from minitl.ops.activations.activation import ACTIVATIONS
from minitl.records import Var
from minitl.tape import Tape


class Activation(Layer):
    """An elementwise activation, named as its op is."""

    op: ops.Op

    def __init__(self, path: str, role: str, name: str) -> None:
        op = lookup("activation", name, ACTIVATIONS, layer=path)
        super().__init__(path, role)
        self.op = op

    @property
    def rules(self) -> tuple[str, ...]:
        """The op's."""
        return self.op.rules

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Apply the activation to x (..., C)."""
        return self._run(tape, self.op, x)


class Dropout(Layer):
    """Dropout with probability p, in training only."""

    def __init__(self, path: str, p: float) -> None:
        super().__init__(path, "dropout")
        self.p = p

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Drop a share p of x, by the tape's seed and the layer's path."""
        if not tape.training or self.p == 0:
            return x
        return self._run(tape, ops.dropout, x, attrs={"p": self.p, "seed": (tape.seed, crc32(self.path.encode()))})


class Pool(Layer):
    """Global average pool: (N, H, W, C) to (N, C), or to (N, 1, 1, C) with `keepdims`."""

    def __init__(self, path: str, *, keepdims: bool = False) -> None:
        super().__init__(path, "pool")
        self.keepdims = keepdims

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Average x over its positions."""
        return self._run(tape, ops.global_avg_pool, x, attrs={"keepdims": self.keepdims})


class Scale(Layer):
    """Multiply a map by a gate a channel. With the rule `folded` the convolution after it does it instead."""

    @property
    def rules(self) -> tuple[str, ...]:
        """`folded`, or the product by itself."""
        return ("folded",)

    def __call__(self, tape: Tape, x: Var, gate: Var) -> Var:
        """Multiply x (N, H, W, C) by gate (N, 1, 1, C)."""
        return self._run(tape, ops.scale, x, gate)


class Add(Layer):
    """The residual."""

    def __call__(self, tape: Tape, a: Var, b: Var) -> Var:
        """Add two maps of one shape."""
        return self._run(tape, ops.add, a, b)
