"""The layers that make a squeeze-and-excite's gate of a map's means (N, 1, 1, C), forward and backward:

    gate = act2(act1(means W1^T + b1) W2^T + b2)

They are so small that all samples go through them in one task: handing them out to threads, or going back to
Python in between, would take longer than they do. Each step is the op's own call.
"""

from __future__ import annotations

from collections.abc import Callable

from minitl.arrays import Array
from minitl.bits import packed_shape
from minitl.fused.program import Squeeze, Values, rule_in_use
from minitl.fused.work import Work
from minitl.kernels import elementwise, pointwise
from minitl.kernels.channels import sums_call
from minitl.kernels.elementwise import NONE
from minitl.kernels.groups import Groups
from minitl.kernels.rules import FromInput, FromOutput, codes_of
from minitl.kernels.tasks import NOTHING, Place, Recorder
from minitl.ops.activations.activation import kept_for_slope, tensor_of
from minitl.parameters import Parameter
from minitl.records import OpRecord, Record
from minitl.saved import Saved

KeptArrays = dict[tuple[Record, str], Array]  # by record and tensor
Name = tuple[object, ...]


class _Task:
    """Steps that follow one another, and the arrays they are on."""

    def __init__(self) -> None:
        self.steps: list[Callable[[Recorder], None]] = []
        self.arrays: list[Array] = []

    def place(self, array: Array) -> Place:
        """Where a step finds the array."""
        self.arrays.append(array)
        return Place(1 + len(self.arrays))

    def record(self, to: Recorder) -> None:
        """Record all steps."""
        to.task()
        for step in self.steps:
            step(to)

    def run(self, work: Work, name: Name) -> None:
        """Do them."""

        def scratch() -> tuple[int, int]:
            first = Recorder()
            self.record(first)
            return first.size

        work.recorded(name, self.record, scratch, *self.arrays)


def excite(se: Squeeze, means: Array, values: Values, work: Work, name: Name) -> tuple[Array, KeptArrays]:
    """The gate, and what the layers keep."""
    task, x, kept = _Task(), means, KeptArrays()
    for dense, act in se.layers:
        kept[dense, "x"] = x
        x = _up(task, dense, act, x, values, work, kept)
    task.run(work, name)
    return x, kept


def _up(task: _Task, dense: OpRecord, act: OpRecord, x: Array, values: Values, work: Work, kept: KeptArrays) -> Array:
    """A linear layer and its activation."""
    shape, dtype, rule = act.shapes[0], work.dtype, rule_in_use(act)
    weight, bias = (values[p] for p in dense.parameters)
    pre, packed = work.new(shape), NOTHING
    y = work.new(shape) if isinstance(rule, FromInput) else pre
    if isinstance(rule, FromInput):
        kept[act, "x"] = pre
    if isinstance(rule, FromOutput):
        kept[act, "y"] = y
    if codes := codes_of(rule):
        packed = kept[act, tensor_of(codes)] = work.zeros(packed_shape(shape, codes.bits), "uint8")
    at_x, at_weight, at_bias, at_pre, at_y, at_packed = map(task.place, (x, weight, bias, pre, y, packed))
    what = NONE, act.name, act.rule if codes else ""

    def step(to: Recorder) -> None:
        pointwise.layer_calls(to, shape[0], weight.shape[:2], dtype, (at_x, at_weight, at_pre), at_bias)
        elementwise.up_call(to, (0, shape[0]), shape[3], dtype, what, (at_pre, at_y, 0, 0, 0, 0, 0, 0, at_packed))

    task.steps.append(step)
    return y


def excite_back(
    se: Squeeze, slopes: Array, saved: Callable[[OpRecord], Saved], values: Values, work: Work, name: Name
) -> tuple[Array, dict[Parameter, Array], dict[Parameter, Array]]:
    """Gradients of the means and of the weights; and the sums of each group that are the biases'. Writes over `slopes`.

    `saved` gives what a layer kept.
    """
    task, weights, biases = _Task(), dict[Parameter, Array](), dict[Parameter, Array]()
    for dense, act in reversed(se.layers):
        (weight, bias), (_, wants_weight, wants_bias) = dense.parameters, dense.needs
        _through(task, act, slopes, saved(act), work)
        if wants_weight:
            weights[weight] = work.new(weight.value.shape)
            _of_weight(task, saved(dense)["x"], slopes, weights[weight], work)
        if wants_bias:
            biases[bias] = work.new((len(Groups(slopes.shape)), slopes.shape[3]), "float64")
            _sums(task, slopes, biases[bias], work)
        below = work.new(dense.shapes[0])
        _of_input(task, slopes, values[weight], below, work)
        slopes = below
    task.run(work, name)
    return slopes, weights, biases


def _through(task: _Task, act: OpRecord, g: Array, saved: Saved, work: Work) -> None:
    """The activation's slope."""
    at_g, at_kept, at_packed = map(task.place, (g, *kept_for_slope(saved)))
    what = NONE, act.name, act.rule

    def step(to: Recorder) -> None:
        elementwise.down_call(
            to, (0, g.shape[0]), g.shape[3], work.dtype, what, (at_g, at_g, 0, 0, at_kept, at_packed, 0, 0)
        )

    task.steps.append(step)


def _of_weight(task: _Task, x: Array, g: Array, gw: Array, work: Work) -> None:
    groups = Groups(x.shape)
    at = pointwise.sides(x.shape[3], g.shape[3], alone=True)
    places = task.place(x), task.place(g), task.place(gw)

    def step(to: Recorder) -> None:
        pointwise.piece_calls(to, groups, at, work.dtype, ((0, at.rows), (0, at.columns)), places)

    task.steps.append(step)


def _sums(task: _Task, g: Array, sums: Array, work: Work) -> None:
    at_g, at_sums = task.place(g), task.place(sums)

    def step(to: Recorder) -> None:
        for number, span in enumerate(Groups(g.shape)):
            sums_call(to, span, g.shape[3], work.dtype, at_g, at_sums + number * g.shape[3] * 8)

    task.steps.append(step)


def _of_input(task: _Task, g: Array, weight: Array, gx: Array, work: Work) -> None:
    places = task.place(g), task.place(weight), task.place(gx)

    def step(to: Recorder) -> None:
        pointwise.layer_back_calls(to, g.shape[0], weight.shape[:2], work.dtype, places)

    task.steps.append(step)
