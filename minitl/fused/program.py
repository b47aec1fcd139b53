"""What a fused run does: stages, read off the records that the op-by-op path would make.

A stage is a convolution, the norm after it and perhaps an activation; before its convolution
may stand a squeeze-and-excite. An inverted residual block is two or three stages, a stem or a
head is one. Nothing is decided here: which parameters train, which backward rules are used and
what must be kept stand in the records, and what a rule is stands in its op. Records that are not
of this form run op by op, and `compile_records` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm
from typing import Any, NamedTuple, TypeVar

from minitl import ops
from minitl.kernels.elementwise import IDENTITY
from minitl.kernels.groups import group_size
from minitl.kernels.rules import BATCH, FROZEN, FromInput, FromOutput, Rule, codes_of
from minitl.ops.convolutions.window import window
from minitl.ops.op import NORMALISATION
from minitl.pixels import Normalisation
from minitl.records import Checkpoint, Holding, OpRecord

T = TypeVar("T")

NORMS = (ops.frozen_norm, ops.batch_norm)
CONVS = (ops.pointwise_conv, ops.depthwise_conv, ops.conv)


def rule_in_use(act: OpRecord) -> Rule | None:
    """The activation's backward rule, where its backward is wanted."""
    return act.op.elementwise[act.rule] if act.needs[0] and act.op.elementwise else None


class Squeeze(NamedTuple):
    """The records of a squeeze-and-excite; `scale` is None where the convolution after it takes the gate.

    `layers` make the gate of the means: two linear layers, each with its activation.
    """

    pool: OpRecord
    layers: Sequence[tuple[OpRecord, OpRecord]]
    scale: OpRecord | None

    @property
    def hidden(self) -> int:
        """Channels between the two layers."""
        return self.layers[0][1].shapes[0][3]


class Stage:
    """A convolution, its norm and perhaps an activation, after perhaps a squeeze-and-excite."""

    def __init__(self, squeeze: Squeeze | None, conv: OpRecord, norm: OpRecord, act: OpRecord | None) -> None:
        self.squeeze, self.conv, self.norm, self.act = squeeze, conv, norm, act
        self.dtype, self.x, self.y = conv.dtype, conv.shapes[0], norm.shapes[0]
        self.gated = conv.op is ops.gated_conv  # a gate is multiplied into its weights
        self.pointwise = self.gated or conv.op is ops.pointwise_conv  # a product at every position
        self.depthwise = conv.op is ops.depthwise_conv
        self.batch = norm.op is ops.batch_norm  # its norm takes the statistics of the batch
        self.rule = rule_in_use(act) if act else None
        self.codes = codes_of(self.rule)
        self.keeps_input = isinstance(self.rule, FromInput)  # of the activation, for backward
        self.keeps_output = isinstance(self.rule, FromOutput)
        names = (act.name, act.rule if self.rule else "") if act else (IDENTITY, "")
        self.what = BATCH if self.batch else FROZEN, *names  # norm, activation, rule in use: see `elementwise`
        self.weight = conv.parameters[0].value.shape  # (O, I, k, k)
        self.window = window(conv.name, self.x, self.y, self.weight[2], conv.attrs)
        by = conv.attrs.get(NORMALISATION)
        self.normalisation = Normalisation(*by) if by else None  # of images in pixels

    def rows_reached(self, stop: int) -> int:
        """How many rows of y the first `stop` rows of x go into."""
        return min(self.y[1], (stop - 1 + self.window.top) // self.window.s + 1) if stop else 0

    def rows_read(self, stop: int) -> int:
        """How many rows of x the first `stop` rows of y are made of; perhaps beyond its end."""
        return (stop - 1) * self.window.s - self.window.top + self.window.k


class Program:
    """Stages, whether the input is added to the last, the records they stand for, and what those keep.

    Where nothing trains, the mean over all positions may follow (`pool`).
    """

    def __init__(
        self, stages: Sequence[Stage], residual: bool, pool: OpRecord | None, records: Sequence[OpRecord],
        holdings: Sequence[Holding],
    ) -> None:  # fmt: skip
        self.stages, self.residual, self.pool = stages, residual, pool
        self.records, self.holdings, self.dtype = records, holdings, records[0].dtype
        self.trains = any(any(record.needs) for record in records)  # if not, maps need not outlive their samples
        self.parameters = tuple(dict.fromkeys(p for record in records for p in record.parameters))
        self.unit = lcm(*(group_size(shape) for stage in stages for shape in (stage.x, stage.y)))  # see `links`
        self._planned: dict[Any, Any] = {}
        self._placed: dict[tuple[int, int], tuple[OpRecord, ...]] = {}

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
        if not trains and (stage.batch or stage.gated):
            return f"{stage.norm.layer} takes the batch's statistics, or a gate, where nothing trains"
        stages.append(stage)
    residual, rest = bool(left), left[1:]
    if rest or not 1 <= len(stages) <= 3 or not all(stage.pointwise for stage in (stages[:-2] + stages[1:][-1:])):
        return f"{plain[0].layer} does not begin an inverted residual block"
    return Program(stages, residual, pool, plain, holdings)


def _stage(left: list[OpRecord]) -> Stage | str:
    """Take a stage off the front of the list, or say what stands in the way."""
    squeeze = _squeeze(left)
    if isinstance(squeeze, str):
        return squeeze
    convs = (ops.gated_conv,) if squeeze is not None and squeeze.scale is None else CONVS
    if len(left) < 2 or left[0].op not in convs or left[1].op not in NORMS:
        return f"{left[0].layer} ({left[0].name}) is no convolution with a norm after it"
    conv, norm = left.pop(0), left.pop(0)
    if conv.op is ops.conv and conv.needs[0]:
        return f"{conv.layer} is a dense convolution whose input wants a gradient"
    if len(conv.parameters) > 1:
        return f"{conv.layer} has a bias"
    return Stage(squeeze, conv, norm, left.pop(0) if left and left[0].op.elementwise is not None else None)


def _squeeze(left: list[OpRecord]) -> Squeeze | str | None:
    """Take a squeeze-and-excite off the front of the list, if one stands there."""
    if len(left) < 6 or left[0].op is not ops.global_avg_pool:
        return None
    pool, fc1, act, fc2, gate = (left.pop(0) for _ in range(5))
    layers = (fc1, act), (fc2, gate)
    for dense, slope in layers:
        if dense.op is not ops.pointwise_conv or len(dense.parameters) < 2 or slope.op.elementwise is None:
            return f"{dense.layer} and {slope.layer} are no linear layer with a bias and an activation"
    squeeze = Squeeze(pool, layers, left.pop(0) if left[0].op is ops.scale else None)
    takes = squeeze.scale or left[0]
    if any(takes.needs[:2]) and not all(takes.needs[:2]):
        return f"{takes.layer} passes a gradient to its map or to its gate alone"
    return squeeze
