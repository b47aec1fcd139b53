"""Layers that multiply their input by a weight, whole or by one of the rules that keep less of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from minitl import carried, ops
from minitl.arrays import Array
from minitl.errors import RuleError, ValueRangeError, brief
from minitl.layers.layer import Layer
from minitl.layers.plan import LayerPlan
from minitl.ops.rules.approximate import CHANNELS
from minitl.ops.rules.quantised import BITS
from minitl.ops.rules.sparse import SPARSE, expect_pattern, largest
from minitl.parameters import expect_writable
from minitl.records import Var
from minitl.tape import Tape


class Adaptor(Protocol):
    """What stands beside a layer and joins its output."""

    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""

    def __call__(self, tape: Tape, x: Var, y: Var) -> Var:
        """The layer's output y, joined by what the adaptor makes of x."""


class Product(Layer):
    """A layer that multiplies its input by a weight; its rules keep less of the input (`ops.rules.approximate`)."""

    op: ops.Op
    trainable = ("weight", "bias")
    chosen: tuple[int, ...] = ()  # channels that train, where the plan only says how many
    adaptor: Adaptor | None = None

    def parts(self) -> Iterator[Layer]:
        """The layer, and those of its adaptor."""
        yield self
        yield from self.adaptor.layers() if self.adaptor else ()

    @property
    def settings(self) -> tuple[Any, ...]:
        """Its plan, and those of its adaptor."""
        return tuple(part.plan for part in self.parts())

    @property
    def exact(self) -> bool:
        """Whether its backward rule is the derivative of its forward."""
        return not self.plan.pattern and super().exact

    @property
    def trained_count(self) -> int:
        """How many of its numbers train: of the weight only what rule and pattern leave."""
        weight, many = self.parameters["weight"], self.plan.channels
        if not weight.trained:
            return super().trained_count
        left, size = super().trained_count - weight.value.size, weight.value.size
        if self.plan.rule == CHANNELS:
            size = size // self._inputs * (many if isinstance(many, int) else len(many))
        n, m = self.plan.pattern or (1, 1)
        return left + size // m * n

    @property
    def rules(self) -> tuple[str, ...]:
        """The op's."""
        return self.op.rules

    @property
    def _channels_axis(self) -> int:
        return 0 if self.op is ops.depthwise_conv else 1

    @property
    def _inputs(self) -> int:
        return int(self.parameters["weight"].value.shape[self._channels_axis])

    def check(self, plan: LayerPlan) -> None:
        """Raise on what it does not have, such as channels, or a pattern that does not fit."""
        super().check(plan)
        if plan.pattern:
            if self.op.name not in SPARSE or plan.rule:
                problem = "a pattern is for a 1x1 convolution or a linear layer without another rule"
                raise RuleError(problem, layer=self.path, op=self.op.name, remedy="leave it out")
            expect_pattern(self.op.name, self.parameters["weight"].value.shape, plan.pattern, layer=self.path)
            expect_writable(self.parameters["weight"].name, self.parameters["weight"].value)
        inputs = self._inputs
        many = plan.channels if isinstance(plan.channels, int) else len(plan.channels)
        if plan.rule == CHANNELS and not (isinstance(many, int) and 1 <= many <= inputs):
            raise ValueRangeError(
                layer=self.path, expected=f"1 to {inputs} channels for rule channels", got=brief(plan.channels),
                remedy="method sparse-update chooses them",
            )  # fmt: skip

    def apply(self, plan: LayerPlan) -> None:
        """Follow `plan` from now on: what was carried is forgotten, and a pattern prunes the weight for good."""
        super().apply(plan)
        self.chosen = ()
        if plan.pattern:
            weight = self.parameters["weight"].value
            weight *= largest(weight, plan.pattern, 1)

    def carried(self) -> dict[str, Array]:
        """The channels chosen."""
        return {"channels": np.array(self.chosen)} if self.chosen else {}

    def carry(self, arrays: Mapping[str, Array]) -> None:
        """Go on with these channels."""
        if arrays:
            channels = arrays["channels"]
            if len(arrays) > 1 or channels.dtype.kind != "i" or channels.shape != (self.plan.channels,):
                raise ValueError(f"{self.path}: {list(arrays)} are not the channels it trains")
            self.chosen = tuple(int(channel) for channel in channels)

    def _rule_attrs(self, tape: Tape) -> dict[str, Any]:
        """What its rule needs: what decides how a quantised input is rounded, or the channels to keep."""
        if self.plan.rule == CHANNELS:
            return {"channels": self._channels(tape)}
        return {"seed": (tape.seed, crc32(self.path.encode()))} if self.plan.rule in BITS else {}

    def _multiply(self, tape: Tape, x: Var, attrs: Mapping[str, Any]) -> Var:
        """The product, as plan and adaptor say."""
        if self.plan.pattern:
            op, attrs = SPARSE[self.op.name], {"pattern": self.plan.pattern}
        else:
            op, attrs = self.op, {**attrs, **self._rule_attrs(tape)}
        return self._joined(tape, x, self._run(tape, op, x, *self.parameters.values(), attrs=attrs))

    def _joined(self, tape: Tape, x: Var, y: Var) -> Var:
        return self.adaptor(tape, x, y) if self.adaptor else y

    def _channels(self, tape: Tape) -> tuple[int, ...]:
        planned = self.plan.channels
        if not isinstance(planned, int) or self.chosen:
            return self.chosen or planned  # type: ignore[return-value]
        if not (tape.computes and tape.training):
            return tuple(range(planned))  # only their number matters
        self.chosen = carried.largest(self.parameters["weight"].array(), self._channels_axis, planned)
        return self.chosen


class Linear(Product):
    """Linear layer with weight (O, I) and bias (O,). `final` marks the one that gives the logits."""

    op = ops.linear

    def __init__(
        self, path: str, inputs: int, outputs: int, *, rng: np.random.Generator, dtype: str, final: bool = True
    ) -> None:
        weight = (rng.standard_normal((outputs, inputs)) * 0.01).astype(dtype)
        super().__init__(path, "classifier", {"weight": weight, "bias": np.zeros(outputs, dtype)})
        self.final = final

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Map x (N, I) to (N, O)."""
        return self._multiply(tape, x, {})
