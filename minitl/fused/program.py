"""What a fused run does: stages, read off the records that the op-by-op path would make.

A stage is a convolution, the norm after it and perhaps an activation; before its convolution
may stand a squeeze-and-excite. An inverted residual block is two or three stages, a stem or a
head is one. Nothing is decided here: which parameters train, which backward rules are used and
what must be kept stand in the records, and what a rule is stands in its op. Records that are not
of this form run op by op, and `compile_records` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import lcm
from typing import Any, TypeVar

from minitl import ops
from minitl.arrays import Shape
from minitl.kernels.groups import group_size
from minitl.kernels.rules import Codes, FromInput, FromOutput, Rule, codes_of
from minitl.kernels.window import Window
from minitl.ops.convolutions.window import window
from minitl.ops.op import NORMALISATION
from minitl.parameters import Parameter
from minitl.pixels import Normalisation
from minitl.records import Checkpoint, Holding, OpRecord

T = TypeVar("T")

NORMS = (ops.frozen_norm, ops.batch_norm)
CONVS = (ops.pointwise_conv, ops.depthwise_conv, ops.conv)


def rule_in_use(act: OpRecord) -> Rule | None:
    """The activation's backward rule, where its backward is wanted."""
    return act.op.elementwise[act.rule] if act.needs[0] and act.op.elementwise else None


@dataclass(frozen=True, eq=False)
class Squeeze:
    """The records of a squeeze-and-excite; `scale` is None where the convolution after it takes the gate."""

    pool: OpRecord
    fc1: OpRecord
    act: OpRecord
    fc2: OpRecord
    gate: OpRecord
    scale: OpRecord | None

    @property
    def layers(self) -> tuple[tuple[OpRecord, OpRecord], ...]:
        """What makes the gate of the means: two linear layers, each with its activation."""
        return (self.fc1, self.act), (self.fc2, self.gate)


@dataclass(frozen=True, eq=False)
class Stage:
    """A convolution, its norm and perhaps an activation, after perhaps a squeeze-and-excite."""

    squeeze: Squeeze | None
    conv: OpRecord
    norm: OpRecord
    act: OpRecord | None

    @cached_property
    def gated(self) -> bool:
        """Whether the convolution multiplies a gate into its weights."""
        return self.conv.op is ops.gated_conv

    @cached_property
    def pointwise(self) -> bool:
        """Whether the convolution is a product at every position."""
        return self.conv.op in (ops.pointwise_conv, ops.gated_conv)

    @cached_property
    def depthwise(self) -> bool:
        """Whether the convolution has one filter per channel."""
        return self.conv.op is ops.depthwise_conv

    @cached_property
    def batch(self) -> bool:
        """Whether its norm takes the statistics of the batch."""
        return self.norm.op is ops.batch_norm

    @cached_property
    def x(self) -> Shape:
        """Shape of the convolution's input."""
        return self.conv.shapes[0]

    @cached_property
    def y(self) -> Shape:
        """Shape of its output."""
        return self.norm.shapes[0]

    @cached_property
    def normalisation(self) -> Normalisation | None:
        """What makes numbers of its input, where that is images in pixels."""
        by = self.conv.attrs.get(NORMALISATION)
        return Normalisation(*by) if by else None

    @cached_property
    def window(self) -> Window:
        """Where the convolution's taps fall."""
        return window(self.conv.name, self.x, self.y, self.conv.shapes[-1][2], self.conv.attrs)

    @cached_property
    def rule(self) -> Rule | None:
        """The activation's backward rule, where its backward is wanted."""
        return rule_in_use(self.act) if self.act else None

    @cached_property
    def keeps_input(self) -> bool:
        """Whether backward reads the activation's input."""
        return isinstance(self.rule, FromInput)

    @cached_property
    def keeps_output(self) -> bool:
        """Whether backward reads the activation's output."""
        return isinstance(self.rule, FromOutput)

    @cached_property
    def names(self) -> tuple[str, str]:
        """The activation, and its rule where its backward is wanted."""
        return (self.act.name, self.act.rule if self.rule else "") if self.act else ("identity", "")

    @cached_property
    def codes(self) -> Codes | None:
        """The codes that the rule keeps."""
        return codes_of(self.rule)


@dataclass(frozen=True, eq=False)
class Program:
    """Stages, whether the input is added to the last, the records they stand for, and what those keep.

    Where nothing trains, the mean over all positions may follow (`pool`).
    """

    stages: tuple[Stage, ...]
    residual: OpRecord | None
    pool: OpRecord | None
    records: tuple[OpRecord, ...]
    holdings: tuple[Holding, ...]
    _planned: dict[Any, Any] = field(default_factory=dict)
    _placed: dict[tuple[int, int], tuple[OpRecord, ...]] = field(default_factory=dict)

    def planned(self, key: Any, make: Callable[[], T]) -> T:
        """What follows from the program, made when it is first asked for."""
        if key not in self._planned:
            self._planned[key] = make()
        found: T = self._planned[key]
        return found

    def records_at(self, first: int, source: int) -> tuple[OpRecord, ...]:
        """The records on a tape that holds `first` before, of an input that `source` made; they hold nothing.

        Where nothing trains, all tapes that run the program there share them.
        """
        if (first, source) not in self._placed:
            self._placed.clear()
            self._placed[first, source] = tuple(record.again() for record in self.records)
            for record in self._placed[first, source]:
                record.move(first, source)
        return self._placed[first, source]

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters, each once."""
        return tuple(dict.fromkeys(p for record in self.records for p in record.parameters))

    @property
    def dtype(self) -> str:
        """The dtype of its numbers."""
        return self.records[0].dtype

    @cached_property
    def trains(self) -> bool:
        """Whether any gradient is wanted: if not, maps need not outlive their samples."""
        return any(any(record.needs) for record in self.records)

    @cached_property
    def unit(self) -> int:
        """Samples that one thread takes at a time: whole groups of every map."""
        return lcm(*(group_size(shape) for stage in self.stages for shape in (stage.x, stage.y)))


def compile_records(records: Sequence[OpRecord | Checkpoint], holdings: Sequence[Holding]) -> Program | str:
    """The program of these records; or, where they cannot be fused, why not."""
    plain, stages = list[OpRecord](), list[Stage]()
    for record in records:
        if isinstance(record, Checkpoint):
            return f"{record.layer} is run again in backward"
        if record.op.elementwise is None and record.rule != record.op.rules[0]:
            return f"{record.layer} keeps its input by the rule {record.rule}"
        plain.append(record)
    left = plain.copy()
    trains = any(any(record.needs) for record in plain)
    pool = left.pop() if left and left[-1].op is ops.global_avg_pool and not trains else None
    while left and left[0].op is not ops.add:
        stage = _stage(left)
        if isinstance(stage, str):
            return stage
        stages.append(stage)
    residual = left.pop(0) if left else None
    if left or not 1 <= len(stages) <= 3 or not all(stage.pointwise for stage in (stages[:-2] + stages[1:][-1:])):
        return f"{plain[0].layer} does not begin an inverted residual block"
    return Program(tuple(stages), residual, pool, tuple(plain), tuple(holdings))


def _stage(left: list[OpRecord]) -> Stage | str:
    """Take a stage off the front of the list, or say what stands in the way."""
    squeeze = _squeeze(left)
    if isinstance(squeeze, str):
        return squeeze
    convs = (ops.gated_conv,) if squeeze is not None and squeeze.scale is None else CONVS
    if len(left) < 2 or left[0].op not in convs or left[1].op not in NORMS:
        return f"{left[0].layer} ({left[0].name}) is no convolution with a norm after it"
    conv, norm, act = left.pop(0), left.pop(0), None
    if conv.op is ops.conv and conv.needs[0]:
        return f"{conv.layer} is a dense convolution whose input wants a gradient"
    if len(conv.parameters) > 1:
        return f"{conv.layer} has a bias"
    if left and left[0].op.elementwise is not None:
        act = left.pop(0)
    return Stage(squeeze, conv, norm, act)


def _squeeze(left: list[OpRecord]) -> Squeeze | str | None:
    """Take a squeeze-and-excite off the front of the list, if one stands there."""
    if len(left) < 6 or left[0].op is not ops.global_avg_pool:
        return None
    pool, fc1, act, fc2, gate = (left.pop(0) for _ in range(5))
    for dense, slope in ((fc1, act), (fc2, gate)):
        if dense.op is not ops.pointwise_conv or len(dense.parameters) < 2 or slope.op.elementwise is None:
            return f"{dense.layer} and {slope.layer} are no linear layer with a bias and an activation"
    squeeze = Squeeze(pool, fc1, act, fc2, gate, left.pop(0) if left[0].op is ops.scale else None)
    takes = squeeze.scale or left[0]
    if any(takes.needs[:2]) and not all(takes.needs[:2]):
        return f"{takes.layer} passes a gradient to its map or to its gate alone"
    return squeeze
