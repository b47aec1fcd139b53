"""What a fused run does: stages, read off the records that the op-by-op path would make.

A stage is a convolution, the norm after it and perhaps an activation; before its convolution
may stand a squeeze-and-excite. An inverted residual block is two or three stages, a stem or a
head is one. Nothing is decided here: which parameters train, which backward rules are used and
what must be kept stand in the records. Records that are not of this form, or whose activation
has a rule that this path does not know, run op by op.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minitl import ops
from minitl.arrays import Array, Shape, positions, size
from minitl.parameters import Parameter
from minitl.records import Checkpoint, Holding, OpRecord, Record

ABOVE_ZERO = 1e-45  # the least float32 above 0 (in float64 within 1e-45 of it): x >= ABOVE_ZERO where x > 0
# of the rules that keep packed codes: bits an element, and as many borders that a value is counted against
CODES = {
    ("relu", "exact"): (1, (ABOVE_ZERO, 0.0)),
    ("relu6", "codes"): (2, (ABOVE_ZERO, 6.0)),
    ("relu6", "sign"): (1, (0.0, 0.0)),
    ("hard_swish", "sign"): (1, (0.0, 0.0)),
    ("hard_swish", "output"): (1, (-1.5, 0.0)),
}
NO_CODES = (0, (0.0, 0.0))
KEEPS_INPUT = (("hard_swish", "exact"),)
KEEPS_OUTPUT = (("relu", "output"), ("relu6", "output"), ("hard_swish", "output"))
TOPS = {"relu": np.inf, "relu6": 6.0, "hard_swish": np.inf}
NORMS = (ops.frozen_norm, ops.batch_norm)
CONVS = (ops.pointwise_conv, ops.depthwise_conv, ops.conv)
SQUEEZE = (ops.global_avg_pool, ops.pointwise_conv, ops.relu, ops.pointwise_conv, ops.hard_sigmoid)


@dataclass(frozen=True)
class Squeeze:
    """The records of a squeeze-and-excite; `scale` is None where the convolution after it takes the gate."""

    pool: OpRecord
    fc1: OpRecord
    act: OpRecord
    fc2: OpRecord
    gate: OpRecord
    scale: OpRecord | None

    @property
    def layers(self) -> tuple[OpRecord, ...]:
        """What makes the gate of the means."""
        return self.fc1, self.act, self.fc2, self.gate


@dataclass(frozen=True)
class Stage:
    """A convolution, its norm and its activation; `norm` is None where it is folded into the convolution."""

    squeeze: Squeeze | None
    conv: OpRecord
    norm: OpRecord | None
    act: OpRecord | None

    @property
    def kind(self) -> str:
        """The convolution's op."""
        return str(self.conv.attrs["kind"]) if self.norm is None else self.conv.name

    @property
    def gated(self) -> bool:
        """Whether the convolution multiplies a gate into its weights."""
        return self.conv.op is ops.gated_conv

    @property
    def keeps_output(self) -> bool:
        """Whether backward reads the activation's output."""
        return self.act is not None and self.act.needs[0] and (self.act.name, self.act.rule) in KEEPS_OUTPUT

    @property
    def batch(self) -> bool:
        """Whether its norm takes the statistics of the batch."""
        return self.norm is not None and self.norm.op is ops.batch_norm

    @property
    def shape(self) -> Shape:
        """Shape of its output."""
        return self.conv.cost.output

    @property
    def norm_parameters(self) -> tuple[Parameter, ...]:
        """Scale, shift, running mean and variance."""
        return self.norm.parameters if self.norm else self.conv.parameters[1:]

    @property
    def eps(self) -> float:
        """What the norm adds to the variance."""
        return float((self.norm or self.conv).attrs["eps"])


Values = dict[Parameter, Array]  # the numbers of each parameter


@dataclass(frozen=True, eq=False)
class Program:
    """Stages, whether the input is added to the last, the records they stand for, and what those keep."""

    stages: tuple[Stage, ...]
    residual: OpRecord | None
    records: tuple[OpRecord, ...]
    holdings: tuple[Holding, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters, each once."""
        return tuple(dict.fromkeys(p for record in self.records for p in record.parameters))

    @property
    def trains(self) -> bool:
        """Whether any gradient is wanted: if not, maps need not outlive their samples."""
        return any(any(record.needs) for record in self.records)

    @property
    def rows(self) -> int:
        """Positions of the smallest map of a sample."""
        return min(positions(stage.shape[1:]) for stage in self.stages)

    @property
    def widest(self) -> int:
        """Elements of the largest map that a stage makes of a sample."""
        return max(size(stage.shape[1:]) for stage in self.stages)


@dataclass(frozen=True, eq=False)
class Run:
    """One forward pass of a program: a tape's records of it by the program's own, and the record its input is of."""

    program: Program
    records: dict[Record, OpRecord]
    source: int


def compile_records(records: Sequence[OpRecord | Checkpoint], holdings: Sequence[Holding]) -> Program | None:
    """The program of these records, or None where they cannot be fused."""
    left = [record for record in records if isinstance(record, OpRecord)]
    if len(left) < len(records):
        return None
    plain, stages = tuple(left), []
    while left and left[0].op is not ops.add:
        stage = _stage(left)
        if stage is None:
            return None
        stages.append(stage)
    residual = left.pop(0) if left else None
    if left or not stages:
        return None
    return Program(tuple(stages), residual, plain, tuple(holdings))


def _stage(left: list[OpRecord]) -> Stage | None:
    """Take a stage off the front of the list."""
    squeeze = None
    if tuple(record.op for record in left[: len(SQUEEZE)]) == SQUEEZE:
        pool, fc1, relu, fc2, gate = (left.pop(0) for _ in SQUEEZE)
        squeeze = Squeeze(pool, fc1, relu, fc2, gate, left.pop(0) if left and left[0].op is ops.scale else None)
        takes = squeeze.scale or (left[0] if left else pool)
        if any(takes.needs) and not all(takes.needs):
            return None
    takes_gate = squeeze is not None and squeeze.scale is None
    if not left or left[0].op not in ((ops.gated_conv,) if takes_gate else (*CONVS, ops.folded_conv)):
        return None
    conv, norm, act = left.pop(0), None, None
    if conv.op is not ops.folded_conv:
        if not left or left[0].op not in NORMS or len(conv.parameters) > 1:
            return None
        norm = left.pop(0)
    if left and left[0].name in TOPS:
        act = left.pop(0)
        if act.needs[0] and (act.name, act.rule) not in (*CODES, *KEEPS_INPUT, *KEEPS_OUTPUT):
            return None
    return Stage(squeeze, conv, norm, act)
