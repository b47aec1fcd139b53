"""Layers: parameters, and the choice of op and rule that a method makes for them.

A layer does no arithmetic. It owns its parameters under torchvision's names, knows where it
stands in the network (`path`, `role`, `height`), and hands its op to the tape as its plan says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar
from zlib import crc32

import numpy as np

from minitl import ops
from minitl.arrays import Array
from minitl.checks import expect_flag
from minitl.errors import RuleError, UsageError, brief, lookup, unknown
from minitl.ops.approximate import CHANNELS
from minitl.ops.quantised import BITS
from minitl.parameters import Parameter
from minitl.records import Var
from minitl.tape import Tape

ROLES = (
    "stem", "stem_norm", "stem_act",
    "expand", "expand_norm", "expand_act", "depthwise", "depthwise_norm", "depthwise_act",
    "se_fc1", "se_act", "se_fc2", "se_gate", "se_scale", "project", "project_norm", "add",
    "head_conv", "head_norm", "head_act", "pool", "classifier", "classifier_act", "dropout", "loss",
    "side_pool", "side_conv", "side_norm", "side_act", "side_project", "side_project_norm", "side_up", "side_add",
    "side_fc1", "side_fc_act", "side_fc2", "side_sum", "side_join",
)  # fmt: skip
ACTIVATIONS = {op.name: op for op in (ops.relu, ops.relu6, ops.hard_swish, ops.silu, ops.hard_sigmoid, ops.sigmoid)}


@dataclass(frozen=True)
class LayerPlan:
    """What a method decides for one layer.

    `train` names the parameters that get a gradient; `statistics` says whether a norm uses the
    batch's or its frozen running ones; `rule` is an activation's backward rule ("" for the
    op's first, the paper's baseline), or `folded` for squeeze-and-excite's multiply: the gate
    scales the projection's weights, and the gated map is never built. `recompute`, of an
    expanding convolution, keeps the block's input instead of the depthwise convolution's, which
    backward computes again. `channels`, with the rule `channels`, are the input channels whose
    weights train. What must be kept follows from these, in the op.
    """

    train: frozenset[str] = frozenset()
    statistics: str = "frozen"
    rule: str = ""
    recompute: bool = False
    channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the types; `train` may be any collection of names."""
        if isinstance(self.train, str) or not isinstance(self.train, Set | Sequence):
            raise UsageError(op="LayerPlan", expected="train to be names of parameters", got=brief(repr(self.train)))
        for name in (*self.train, self.statistics, self.rule):
            if not isinstance(name, str):
                raise UsageError(op="LayerPlan", expected="names", got=brief(repr(name)))
        object.__setattr__(self, "train", frozenset(self.train))
        object.__setattr__(self, "recompute", expect_flag("recompute", self.recompute, op="LayerPlan"))


FROZEN = LayerPlan()


class Layer:
    """A place in the network: its path (torchvision's), role, parameters and plan.

    `height` counts from the top: 0 for everything above the blocks, 1 for the last block, and
    so on down; the network sets it.
    """

    trainable: ClassVar[tuple[str, ...]] = ()
    statistics: ClassVar[tuple[str, ...]] = ("frozen",)  # what its plan may say of them

    def __init__(self, path: str, role: str, parameters: Mapping[str, Array] | None = None) -> None:
        if role not in ROLES:
            raise unknown("role", role, ROLES, layer=path)
        self.path, self.role, self.height, self.plan = path, role, 0, FROZEN
        self.parameters = {
            name: Parameter(f"{path}.{name}", value, statistic=name not in self.trainable)
            for name, value in (parameters or {}).items()
        }

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules a plan may choose from, besides the default ""."""
        return ()

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

    def _rule_attrs(self, tape: Tape) -> dict[str, Any]:
        """What its rule needs: what decides how a quantised input is rounded, or the channels to keep."""
        if self.plan.rule == CHANNELS:
            return {"channels": self.plan.channels}
        return {"seed": (tape.seed, crc32(self.path.encode()))} if self.plan.rule in BITS else {}

    def _run(self, tape: Tape, op: ops.Op, *inputs: Var | Parameter, attrs: Mapping[str, Any] | None = None) -> Var:
        rule = self.plan.rule if len(op.rules) > 1 else ""
        return tape.run(op, *inputs, layer=self.path, role=self.role, rule=rule, attrs=attrs)


class Conv(Layer):
    """Convolution with weight (O, C / groups, k, k): pointwise, depthwise or dense, as its shape says."""

    trainable = ("weight", "bias")

    def __init__(
        self,
        path: str,
        role: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        bias: bool = False,
        rng: np.random.Generator,
        dtype: str,
    ) -> None:
        spread = np.sqrt(2.0 / (outputs * kernel * kernel))  # He et al. 2015, by fan-out, as torchvision does
        shape = (outputs, 1 if depthwise else inputs, kernel, kernel)
        parameters = {"weight": (rng.standard_normal(shape) * spread).astype(dtype)}
        if bias:
            parameters["bias"] = np.zeros(outputs, dtype)
        super().__init__(path, role, parameters)
        self.op = ops.depthwise_conv if depthwise else ops.pointwise_conv if kernel == 1 else ops.conv
        self.attrs = {} if self.op is ops.pointwise_conv else {"stride": stride}

    @property
    def rules(self) -> tuple[str, ...]:
        """The op's."""
        return self.op.rules

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Convolve x (N, H, W, C)."""
        return self._run(tape, self.op, x, *self.parameters.values(), attrs={**self.attrs, **self._rule_attrs(tape)})

    def gated(self, tape: Tape, x: Var, gate: Var) -> Var:
        """Convolve gate x, for a pointwise convolution without bias, without building the product."""
        if self.plan.rule:
            problem = f"rule {self.plan.rule} cannot encode an input that the gate's rule folded never builds"
            raise RuleError(problem, layer=self.path, op=self.op.name, remedy="give se_scale another rule")
        return self._run(tape, ops.gated_conv, x, gate, self.parameters["weight"])


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


class Activation(Layer):
    """An elementwise activation, named as its op is."""

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


class Linear(Layer):
    """Linear layer with weight (O, I) and bias (O,). `final` marks the one that gives the logits."""

    trainable = ("weight", "bias")

    def __init__(
        self, path: str, inputs: int, outputs: int, *, rng: np.random.Generator, dtype: str, final: bool = True
    ) -> None:
        weight = (rng.standard_normal((outputs, inputs)) * 0.01).astype(dtype)
        super().__init__(path, "classifier", {"weight": weight, "bias": np.zeros(outputs, dtype)})
        self.final = final

    @property
    def rules(self) -> tuple[str, ...]:
        """The op's."""
        return ops.linear.rules

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Map x (N, I) to (N, O)."""
        return self._run(tape, ops.linear, x, *self.parameters.values(), attrs=self._rule_attrs(tape))


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


def cross_entropy(
    tape: Tape, logits: Var, labels: Any, *, smoothing: float = 0.0, weights: Sequence[float] | None = None
) -> Var:
    """Softmax cross-entropy of logits (N, K) and integer labels (N,), the mean over the batch.

    `smoothing` is the share of a label that is spread over all classes; `weights` (K,) weigh the
    classes, and the mean. See `ops.cross_entropy`.
    """
    attrs: dict[str, Any] = {"smoothing": smoothing} if smoothing else {}
    if weights is not None:
        attrs["weights"] = tuple(map(float, weights))
    return tape.run(ops.cross_entropy, logits, tape.labels(labels), layer="loss", role="loss", attrs=attrs)
