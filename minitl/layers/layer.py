"""What all layers are: parameters, and the choice of op and rule that a method makes for them.

A layer does no arithmetic. It owns its parameters under torchvision's names, knows where it
stands in the network (`path`, `role`, `height`), and hands its op to the tape as its plan says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from minitl import ops
from minitl.arrays import Array
from minitl.errors import RuleError, UsageError, brief, unknown
from minitl.layers.plan import FROZEN, LayerPlan
from minitl.parameters import Parameter
from minitl.records import ROLES, Var
from minitl.tape import Tape


class Layer:
    """A place in the network: its path (torchvision's), role, parameters and plan.

    `height` counts from the top: 0 for everything above the blocks, 1 for the last block, and
    so on down; the network sets it.
    """

    op: ops.Op | None = None
    trainable: ClassVar[tuple[str, ...]] = ()
    statistics: ClassVar[tuple[str, ...]] = ("frozen",)  # what its plan may say of them
    revision: ClassVar[int] = 0  # how often anything that a layer may record by has been set, in any layer

    def __init__(self, path: str, role: str, parameters: Mapping[str, Array] | None = None) -> None:
        if role not in ROLES:
            raise unknown("role", role, ROLES, layer=path)
        self.path, self.role, self.height, self.plan = path, role, 0, FROZEN
        self.parameters = {
            name: Parameter(f"{path}.{name}", value, statistic=name not in self.trainable)
            for name, value in (parameters or {}).items()
        }

    def __repr__(self) -> str:
        trains = [f"trains {' and '.join(sorted(self.plan.train))}"] if self.plan.train else []
        rule = [f"rule {self.plan.rule}"] if self.plan.rule else []
        return f"<{type(self).__name__} {', '.join([self.path, self.role, *trains, *rule])}>"

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name != "batches":
            Layer.revision += 1

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules a plan may choose from, besides the default ""."""
        return ()

    @property
    def exact(self) -> bool:
        """Whether its backward rule is the derivative of its forward."""
        return self.op is None or (self.plan.rule or self.op.rules[0]) not in self.op.approximate

    def check(self, plan: LayerPlan) -> None:
        """Raise on whatever `plan` asks for that the layer does not have; a plan is never followed in part."""
        if not isinstance(plan, LayerPlan):
            raise UsageError(layer=self.path, expected="a LayerPlan", got=brief(repr(plan)))
        for name in sorted(plan.train):
            if name not in self.parameters or name not in self.trainable:
                raise unknown("trained parameter", name, self.parameters or ("(none)",), layer=self.path)
        if plan.statistics not in self.statistics:
            raise unknown("statistics", plan.statistics, self.statistics, layer=self.path)
        if plan.rule and plan.rule not in self.rules:
            raise unknown("backward rule", plan.rule, self.rules or ("(none)",), layer=self.path)
        if plan.recompute and self.role != "expand":
            raise RuleError(
                "recompute is for an expanding convolution", layer=self.path, op=self.role, remedy="leave it out"
            )

    def apply(self, plan: LayerPlan) -> None:
        """Follow `plan` from now on; raises what `check` does, and then nothing has changed."""
        self.check(plan)
        self.plan = plan
        for name, parameter in self.parameters.items():
            parameter.trained = name in plan.train

    @property
    def settings(self) -> tuple[Any, ...]:
        """All that decides what the layer records, shapes apart."""
        return (self.plan,)

    def ran(self, tape: Tape) -> None:
        """Take note that the layer runs on `tape`."""

    def parts(self) -> Iterator[Layer]:
        """The layer, and those of what stands beside it."""
        yield self

    @property
    def trained_count(self) -> int:
        """How many of its numbers train."""
        return sum(p.value.size for p in self.parameters.values() if p.trained)

    def carried(self) -> dict[str, Array]:
        """What its rule carries from step to step, by name (see `carried`)."""
        return {}

    def carry(self, arrays: Mapping[str, Array]) -> None:
        """Go on with what `carried` gave; raises ValueError for what it cannot have given."""
        if arrays:
            raise ValueError(f"{self.path} carries nothing from step to step")

    def _run(self, tape: Tape, op: ops.Op, *inputs: Var | Parameter, attrs: Mapping[str, Any] | None = None) -> Var:
        rule = self.plan.rule if len(op.rules) > 1 and tape.training else ""
        return tape.run(op, *inputs, layer=self.path, role=self.role, rule=rule, attrs=attrs)
