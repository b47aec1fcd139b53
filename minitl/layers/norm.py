"""The batch norm layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl import ops
from minitl.errors import RuleError
from minitl.layers.layer import Layer
from minitl.layers.plan import LayerPlan
from minitl.records import Var
from minitl.tape import Tape


class Norm(Layer):
    """Batch norm: over the batch, or with frozen statistics and scale."""

    trainable = ("weight", "bias")
    statistics = ("batch", "frozen")

    def __init__(self, path: str, role: str, channels: int, *, eps: float, momentum: float, dtype: str) -> None:
        values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        super().__init__(path, role, {name: np.full(channels, value, dtype) for name, value in values.items()})
        self.eps, self.momentum = eps, momentum
        self.batches = 0  # torch's num_batches_tracked

    def check(self, plan: LayerPlan) -> None:
        """Raise on what it does not have; a scale can be trained only with batch statistics."""
        super().check(plan)
        if plan.statistics == "frozen" and "weight" in plan.train:
            raise RuleError(
                "a norm with frozen statistics trains its shift only",
                layer=self.path,
                op="frozen_norm",
                remedy="train its bias alone, or give it statistics='batch'",
            )

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Normalise x (N, H, W, C)."""
        if self.moves(tape):
            attrs = {"eps": self.eps, "momentum": 0.0 if tape.rerun else self.momentum}
            y = self._run(tape, ops.batch_norm, x, *self.parameters.values(), attrs=attrs)
            self.ran(tape)
            return y
        return self._run(tape, ops.frozen_norm, x, *self.parameters.values(), attrs={"eps": self.eps})

    @property
    def settings(self) -> tuple[Any, ...]:
        """The plan, eps and momentum."""
        return self.plan, self.eps, self.momentum

    def moves(self, tape: Tape) -> bool:
        """Whether it takes the batch's statistics on `tape`, and moves its running ones towards them."""
        return tape.training and self.plan.statistics == "batch"

    def ran(self, tape: Tape) -> None:
        """Count the batches that its running statistics have seen."""
        if self.moves(tape):
            self.batches += tape.computes and not tape.rerun
