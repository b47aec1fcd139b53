"""Layers: parameters, and the choice of op and rule that a method makes for them.

A layer does no arithmetic. It owns its parameters under torchvision's names, knows where it
stands in the network (`path`, `role`, `height`), and hands its op to the tape as its plan says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from zlib import crc32

import numpy as np

from minitl import carried, ops
from minitl.arrays import Array
from minitl.checks import as_count, expect_flag
from minitl.errors import MinitlError, RuleError, UsageError, ValueRangeError, brief, lookup, unknown
from minitl.ops.activations.activation import ACTIVATIONS
from minitl.ops.op import NORMALISATION
from minitl.ops.rules.approximate import CHANNELS
from minitl.ops.rules.quantised import BITS
from minitl.ops.rules.sparse import SPARSE, expect_pattern, largest
from minitl.ops.rules.subspace import BASES, IN_SUBSPACE, shapes_of
from minitl.ops.rules.subspace import RULES as SUBSPACE
from minitl.parameters import Parameter, expect_writable
from minitl.pixels import PIXELS, Normalisation
from minitl.records import Var
from minitl.tape import Tape

ROLES = (
    "stem", "stem_norm", "stem_act",
    "expand", "expand_norm", "expand_act", "depthwise", "depthwise_norm", "depthwise_act",
    "se_fc1", "se_act", "se_fc2", "se_gate", "se_scale", "project", "project_norm", "add",
    "head_conv", "head_norm", "head_act", "pool", "classifier", "classifier_act", "dropout", "loss",
    "side_pool", "side_conv", "side_norm", "side_act", "side_project", "side_project_norm", "side_up", "side_add",
    "side_fc1", "side_fc_act", "side_fc2", "side_sum", "side_join",
    "low_rank_down", "low_rank_up", "low_rank_add",
)  # fmt: skip


@dataclass(frozen=True)
class LayerPlan:
    """What a method decides for one layer.

    `train` names the parameters that get a gradient; `statistics` says whether a norm uses the
    batch's or its frozen running ones; `rule` is an activation's backward rule ("" for the
    op's first, the paper's baseline), or `folded` for squeeze-and-excite's multiply: the gate
    scales the projection's weights, and the gated map is never built. `recompute`, of an
    expanding convolution, keeps the block's input instead of the depthwise convolution's, which
    backward computes again. `channels`, with the rule `channels`, are the input channels whose
    weights train, or how many: then those of the largest weights when training begins. `ranks`, with the
    rules `subspace` and `subspace_fixed`, are those of height, width and channels (by default half of the
    sides and an eighth of the channels). `pattern` (N, M) prunes the weight of a 1x1 convolution or
    linear layer to N of every M (`ops.rules.sparse`). What must be kept follows from these, in the op.
    """

    train: frozenset[str] = frozenset()
    statistics: str = "frozen"
    rule: str = ""
    recompute: bool = False
    channels: int | tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    pattern: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the types; `train` may be any collection of names, and numbers any whole numbers."""
        if isinstance(self.train, str) or not isinstance(self.train, Set | Sequence):
            raise UsageError(op="LayerPlan", expected="train to be names of parameters", got=brief(repr(self.train)))
        for name in (*self.train, self.statistics, self.rule):
            if not isinstance(name, str):
                raise UsageError(op="LayerPlan", expected="names", got=brief(repr(name)))
        counts = {"ranks": self.ranks, "pattern": self.pattern or ()}
        many = as_count(self.channels)
        for name, numbers in (counts if many is not None else {**counts, "channels": self.channels}).items():
            given = [as_count(number) for number in numbers] if isinstance(numbers, Sequence) else [None]
            if None in given or (name == "pattern" and len(given) not in (0, 2)):
                raise UsageError(op="LayerPlan", expected=f"{name} in whole numbers", got=brief(repr(numbers)))
            object.__setattr__(self, name, tuple(given) or (None if name == "pattern" else ()))
        if many is not None:
            object.__setattr__(self, "channels", many)
        object.__setattr__(self, "train", frozenset(self.train))
        object.__setattr__(self, "recompute", expect_flag("recompute", self.recompute, op="LayerPlan"))


FROZEN = LayerPlan()


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


class Conv(Product):
    """Convolution with weight (O, C / groups, k, k): pointwise, depthwise or dense, as its shape says."""

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
        self.bases: tuple[Parameter, ...] = ()  # of its input, for the rules that have any
        self.normalisation: Normalisation | None = None  # of images in pixels, which a stem may be given

    @property
    def rules(self) -> tuple[str, ...]:
        """The op's, and without a bias those of `ops.rules.subspace`."""
        return self.op.rules if "bias" in self.parameters else (*self.op.rules, *SUBSPACE)

    @property
    def exact(self) -> bool:
        """Whether its backward rule is the derivative of its forward."""
        return self.plan.rule not in SUBSPACE and super().exact

    def apply(self, plan: LayerPlan) -> None:
        """Follow `plan` from now on; what was carried for the one before is forgotten."""
        super().apply(plan)
        self.bases = ()

    def carried(self) -> dict[str, Array]:
        """The channels chosen, or the bases."""
        return {p.name.rpartition(".")[2]: p.value for p in self.bases} or super().carried()

    def carry(self, arrays: Mapping[str, Array]) -> None:
        """Go on with these."""
        if self.plan.rule not in SUBSPACE or not arrays:
            super().carry(arrays)
            return
        dtype = self.parameters["weight"].dtype
        if set(arrays) != set(BASES) or not all(a.ndim == 2 and a.dtype == dtype for a in arrays.values()):
            raise ValueError(f"{self.path}: {list(arrays)} are not its bases")
        self.bases = tuple(Parameter(f"{self.path}.{name}", arrays[name].copy(), state=True) for name in BASES)

    @property
    def settings(self) -> tuple[Any, ...]:
        """Plans, and what makes numbers of pixels."""
        return (*super().settings, self.normalisation)

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Convolve x (N, H, W, C), which may be images in pixels where it is known by what to normalise them."""
        if x.value.dtype == PIXELS:
            return self._run(tape, self.op, x, *self.parameters.values(), attrs=self._of_pixels())
        if self.plan.rule in SUBSPACE and tape.training:
            op, bases = IN_SUBSPACE[self.op.name], self._bases(tape, x)
            y = self._run(tape, op, x, self.parameters["weight"], *bases, attrs=self.attrs)
            return self._joined(tape, x, y)
        return self._multiply(tape, x, self.attrs)

    def _of_pixels(self) -> dict[str, Any]:
        """Its attributes, for images in pixels; raises RuleError where it cannot read them."""
        problem = "no mean and standard deviation are known" if self.normalisation is None else ""
        if self.plan.rule or self.op is not ops.conv:
            problem = f"the rule {self.plan.rule}" if self.plan.rule else "a 1 x 1 convolution"
            problem = f"{problem} cannot read pixels"
        if problem:
            remedy = "normalise the images: give them as numbers"
            raise RuleError(problem, layer=self.path, op=self.op.name, remedy=remedy)
        return {**self.attrs, NORMALISATION: tuple(self.normalisation or ())}

    def _bases(self, tape: Tape, x: Var) -> tuple[Parameter, ...]:
        """The bases for an input of that shape, made where there are none."""
        try:
            shapes = shapes_of(x.shape, self.plan.ranks)
        except MinitlError as error:
            raise error.at(self.path) from None
        if not tape.computes:
            return carried.stand_ins(self.path, x.value.dtype, shapes)
        if tuple(p.value.shape for p in self.bases) != shapes:
            self.bases = carried.bases(self.path, x.value, shapes, self.plan.rule)
        return self.bases

    def gated(self, tape: Tape, x: Var, gate: Var) -> Var:
        """Convolve gate x, for a pointwise convolution without bias, without building the product."""
        if self.plan.rule or self.plan.pattern or self.adaptor:
            what = f"rule {self.plan.rule} cannot encode" if self.plan.rule else "nothing can read"
            problem = f"{what} an input that the gate's rule folded never builds"
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
