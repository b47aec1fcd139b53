"""The layers that make a squeeze-and-excite's gate of a map's means (N, 1, 1, C), forward and backward:

    gate = act2(act1(means W1^T + b1) W2^T + b2)

They are so small that all samples go through them in one task: handing them out to threads, or going back to
Python in between, would take longer than they do. Each step is the op's own call.
"""

from __future__ import annotations

from minitl.arrays import positions, size
from minitl.bits import packed_shape
from minitl.fused.plan import NO_SLOT, Plan, Slot, Tasks
from minitl.fused.program import Squeeze, rule_in_use
from minitl.kernels import elementwise, pointwise
from minitl.kernels.channels import DIVIDE, ONE, sums_call
from minitl.kernels.groups import Groups
from minitl.kernels.rules import NONE, FromInput, FromOutput, codes_of
from minitl.kernels.tasks import Place, Recorder
from minitl.ops.activations.activation import tensor_of
from minitl.parameters import Parameter
from minitl.records import OpRecord, Record

Kept = dict[tuple[Record, str], Slot]  # by record and tensor
Gradients = dict[Parameter, Slot]


def kept_for_slope(act: OpRecord, kept: Kept) -> tuple[Slot, Slot]:
    """The input or output that an activation's rule kept, and its codes."""
    rule = rule_in_use(act)
    tensor, codes = "x" if isinstance(rule, FromInput) else "y", codes_of(rule)
    return (
        kept[act, tensor] if isinstance(rule, FromInput | FromOutput) else NO_SLOT,
        kept[act, tensor_of(codes)] if codes else NO_SLOT,
    )


def excite(plan: Plan, se: Squeeze, means: Slot) -> tuple[Slot, Kept]:
    """The gate, and what the layers keep."""
    task, x, kept = Tasks(plan, one=True), means, Kept()
    for dense, act in se.layers:
        kept[dense, "x"] = x
        x = _up(task, dense, act, x, kept)
    task.run()
    return x, kept


def _up(task: Tasks, dense: OpRecord, act: OpRecord, x: Slot, kept: Kept) -> Slot:
    """A linear layer and its activation."""
    plan, shape, rule = task.plan, act.shapes[0], rule_in_use(act)
    weight, bias = (plan.values[p] for p in dense.parameters)
    pre, packed, codes = plan.new(shape), NO_SLOT, codes_of(rule)
    y = plan.new(shape) if isinstance(rule, FromInput) else pre
    kept[act, "x"], kept[act, "y"] = pre, y
    if codes:
        packed = kept[act, tensor_of(codes)] = plan.zeros(packed_shape(shape, codes.bits), "uint8")
    what = NONE, act.name, act.rule if codes else ""

    def step(to: Recorder, x: Place, at: Place, bias: Place, pre: Place, y: Place, packed: Place) -> None:
        pointwise.layer_calls(to, shape[0], weight.shape[:2], plan.dtype, (x, at, pre), bias)
        elementwise.up_call(to, (0, shape[0]), shape[3], plan.dtype, what, pre, y, 0, 0, 0, 0, 0, 0, packed)

    task.add(step, x, weight, bias, pre, y, packed)
    return y


def excite_back(plan: Plan, se: Squeeze, slopes: Slot, kept: Kept) -> tuple[Slot, Gradients, Gradients]:
    """What every position gets back through the means; the weights' gradients; and the groups' sums, the biases'.

    It writes over `slopes`.
    """
    task, weights, biases = Tasks(plan, one=True), Gradients(), Gradients()
    for dense, act in reversed(se.layers):
        slopes = _down(task, dense, act, slopes, kept, weights, biases)
    count, area = size(slopes.shape), positions(se.pool.shapes[0][1:])

    def spread(to: Recorder, slopes: Place) -> None:
        DIVIDE.call(to, ONE, count, plan.dtype, slopes, area, slopes)

    task.add(spread, slopes)
    task.run()
    return slopes, weights, biases


def _down(
    task: Tasks, dense: OpRecord, act: OpRecord, g: Slot, kept: Kept, weights: Gradients, biases: Gradients
) -> Slot:
    """Through an activation and a linear layer."""
    plan, dtype, (count, _, _, c), groups = task.plan, task.plan.dtype, g.shape, Groups(g.shape)
    weight, what = dense.parameters[0], (NONE, act.name, act.rule)
    at = pointwise.sides(dense.shapes[0][3], c, alone=True)

    def slope(to: Recorder, g: Place, kept: Place, packed: Place) -> None:
        elementwise.down_call(to, (0, count), c, dtype, what, g, g, 0, 0, kept, packed)

    def of_weight(to: Recorder, x: Place, g: Place, gw: Place) -> None:
        pointwise.piece_calls(to, groups, at, dtype, (0, at.rows), (0, at.columns), (x, g, gw))

    def of_bias(to: Recorder, g: Place, sums: Place) -> None:
        for number, span in enumerate(groups):
            sums_call(to, span, c, dtype, g, sums + number * c * 8)

    def of_input(to: Recorder, g: Place, matrix: Place, gx: Place) -> None:
        pointwise.layer_back_calls(to, count, weight.value.shape[:2], dtype, (g, matrix, gx))

    task.add(slope, g, *kept_for_slope(act, kept))
    if dense.needs[1]:
        weights[weight] = plan.new(weight.value.shape)
        task.add(of_weight, kept[dense, "x"], g, weights[weight])
    if dense.needs[2]:
        biases[dense.parameters[1]] = plan.new((len(groups), c), "float64")
        task.add(of_bias, g, biases[dense.parameters[1]])
    below = plan.new(dense.shapes[0])
    task.add(of_input, g, plan.values[weight], below)
    return below
