"""A stage's kernel calls on some rows of one sample. The kernels are the ops' own.

Places of maps are of the batch's first position; `filters` is a convolution's weight as its kernel reads it.
"""

from __future__ import annotations

from typing import Any

from minitl import ops
from minitl.arrays import Array, Shape, itemsize, positions, size
from minitl.fused.links import Band
from minitl.fused.plan import Slot, Tasks
from minitl.fused.program import Stage
from minitl.kernels import dense, depthwise, elementwise, pointwise, sums
from minitl.kernels.channels import ADD, ONE
from minitl.kernels.compile import Lazily
from minitl.kernels.groups import group_size
from minitl.kernels.pointwise import NO_END, End
from minitl.kernels.tasks import Place, Places, Recorder, Span, given, sample
from minitl.ops.norms.frozen_norm import SCALE_AND_SHIFT
from minitl.records import OpRecord

channels, rounding = Lazily("minitl.kernels.compiled.channels"), Lazily("minitl.kernels.compiled.sums")
pixels = Lazily("minitl.kernels.compiled.pixels")

SMALL = 16  # times that a weight must fit into a group's map for its gradient to be added up group by group


def filter_size(conv: OpRecord, *, back: bool = False) -> int:
    """Numbers in the weight as the convolution (or its input gradient) reads it."""
    weight = conv.parameters[0].value.shape
    if conv.op is ops.conv:
        return dense.panels_size(weight, conv.dtype)
    return size(weight) if conv.op is ops.depthwise_conv else pointwise.packed_size(weight[:2], conv.dtype, not back)


def filters(tasks: Tasks, conv: OpRecord, *, back: bool = False) -> Slot:
    """The weight as the convolution, or its input gradient (`back`), reads it: one of the tasks."""
    weight = tasks.plan.values[conv.parameters[0]]
    shape, dtype, out = weight.shape, conv.dtype, tasks.plan.new((filter_size(conv, back=back),))

    def step(to: Recorder, weight: Place, out: Place) -> None:
        if conv.op is ops.depthwise_conv:
            taps, turned = size(shape[2:]), pointwise.compiled.pack_panel(dtype, False, True)
            to.call(turned, weight, taps, taps, shape[0], shape[0], out)
        elif conv.op is ops.conv:
            dense.pack_calls(to, shape, dtype, weight, out)
        else:
            pointwise.pack_calls(to, shape[:2], dtype, not back, weight, out)

    tasks.add(step, weight, out)
    return out


def norm_factors(tasks: Tasks, norm: OpRecord) -> tuple[Slot, Slot]:
    """The scale and the shift of a frozen norm: one of the tasks."""
    plan, c, eps = tasks.plan, norm.shapes[0][3], norm.attrs["eps"]
    scale, shift = plan.new((c,)), plan.new((c,))

    def step(to: Recorder, *places: Place) -> None:
        *parameters, scale, shift = places
        SCALE_AND_SHIFT.call(to, ONE, c, plan.dtype, *parameters, eps, scale, shift)

    tasks.add(step, *(plan.values[p] for p in norm.parameters), scale, shift)
    return scale, shift


def _by_taps(stage: Stage) -> tuple[Any, Any]:
    """The kernels of a k x k convolution, and the channels that they ask for: of its maps, or of both."""
    return (depthwise, stage.x[3]) if stage.depthwise else (dense, (stage.x[3], stage.y[3]))


def convolve(to: Recorder, stage: Stage, band: Band, x: Place, filters: Place, y: Place, end: End = NO_END) -> None:
    """y = conv(x) for a band of y, and what it `end`s with."""
    if stage.pointwise:
        pointwise.product_calls(to, band.span, stage.x[3], stage.y[3], stage.dtype, (x, filters, y), end=end)
        return
    (kernels, channels), dtype = _by_taps(stage), stage.dtype
    places = sample(x, band.n, stage.x, dtype), filters, sample(y, band.n, stage.y, dtype)
    kernels.forward_calls(to, stage.window, channels, dtype, band.rows, places, end=end)


def as_numbers(to: Recorder, stage: Stage, band: Band, x: Place, table: Place, at: int = 0) -> Place:
    """Where the convolution's input is in numbers, for a band of y.

    Of images in pixels those are the rows that it reads, looked up in `table` (see `minitl.pixels`) `at` so many
    bytes into the thread's own memory.
    """
    if not stage.normalisation:
        return x
    (_, height, width, channels), itself = stage.x, itemsize(stage.dtype)
    first = max(0, band.rows[0] * stage.window.s - stage.window.top)
    count = min(height, stage.rows_read(band.rows[1])) - first
    row, start = width * channels, (band.n * height + first) * width * channels
    room = to.scratch(count * row * itself, at)
    to.call(pixels.look_up(stage.dtype), x + start, table, room, count * width, channels)
    return room + -start * itself


def convolve_back(to: Recorder, stage: Stage, band: Band, gy: Place, filters: Place, gx: Place) -> None:
    """gx for a band of x."""
    dtype = stage.dtype
    if stage.pointwise:
        pointwise.product_calls(to, band.span, stage.y[3], stage.x[3], dtype, (gy, filters, gx))
        return
    places = sample(gy, band.n, stage.y, dtype), filters, sample(gx, band.n, stage.x, dtype)
    depthwise.grad_input_calls(to, stage.window, stage.x[3], dtype, band.rows, places)


def add(to: Recorder, band: Band, channels: int, dtype: str, a: Place, b: Place, out: Place) -> None:
    """out = a + b for a band of maps."""
    at, count = band.span[0] * channels * itemsize(dtype), (band.span[1] - band.span[0]) * channels
    ADD.call(to, ONE, count, dtype, a + at, b + at, out + at)


def pack_gated(to: Recorder, stage: Stage, weight: Place, gate: Place, n: int, out: Place, *, back: bool) -> None:
    """The weight times sample n's gate, in panels."""
    factor = gate + n * stage.x[3] * itemsize(stage.dtype)
    pointwise.pack_calls(to, stage.weight[:2], stage.dtype, not back, weight, out, factor)


def by_groups(stage: Stage) -> bool:
    """Whether each group's part of gW is added up along with gx: all groups' are then small beside a map."""
    if not stage.pointwise:
        return True
    group = group_size(stage.x) * positions(stage.x[1:])
    return not stage.gated and SMALL * stage.x[3] * stage.y[3] <= group * max(stage.x[3], stage.y[3])


def _turned(stage: Stage) -> bool:
    """Whether chains of gW have its output channels last."""
    return not stage.pointwise or pointwise.sides(stage.x[3], stage.y[3]).swapped


def chain_shape(stage: Stage) -> Shape:
    """One group's part of gW, as it is added up."""
    return sums.chain_shape(stage.weight) if _turned(stage) else stage.weight


def add_to_chain(to: Recorder, stage: Stage, band: Band, rows: Span, x: Place, gy: Place, chains: Place) -> None:
    """gW's part of a band of x, which is that of rows `rows` of y, in the chain of the group it is of."""
    group, dtype = group_size(stage.y), stage.dtype
    begins = band.n % group == 0 and rows[0] == 0
    chain = chains + band.n // group * size(stage.weight) * itemsize(dtype)
    if stage.pointwise:
        at = pointwise.sides(stage.x[3], stage.y[3])
        whole = (0, at.rows), (0, at.columns)
        pointwise.outer_calls(to, at, dtype, at.order(x, gy), *whole, band.span, chain, at.columns, begins)
        return
    (kernels, channels), n = _by_taps(stage), band.n
    places = sample(x, n, stage.x, dtype), sample(gy, n, stage.y, dtype), chain
    kernels.grad_weight_calls(to, stage.window, channels, dtype, rows, places, begins)


def join_chains(stage: Stage, chains: Array, total: Array, gw: Array) -> None:
    """gw = the sum of the groups' chains; `total` is room for it in float64."""
    sums.join_chains(chains, total, gw, turned=_turned(stage))


def up(to: Recorder, stage: Stage, band: Band, size: int, places: Places, edges: Place) -> None:
    """Norm, activation and codes of a band; `places` as in `elementwise.up_call`, `edges` has a row per unit.

    Of a unit, `size` samples, whose first byte of codes is the unit before's too, the bits go to its row of `edges`.
    """
    channels, per_byte = stage.y[3], 8 // (stage.codes.bits if stage.codes else 8)
    packed, unit = places[-1], band.n // size
    begins = band.span[0] == unit * size * positions(stage.y[1:])
    edge = edges + unit * channels if begins else packed + band.span[0] // per_byte * channels
    elementwise.up_call(to, band.span, channels, stage.dtype, stage.what, *places, edge)


def grad_gated(to: Recorder, stage: Stage, samples: int = 0) -> None:
    """All tasks of gW and of the gate's gradient: a panel of columns each. Arrays: x, gy, gw, weight, gate, of_gate.

    G_n, a chain over a sample's positions, goes to both: summed over o with W, and over n with the gate.
    """
    x, gy, gw, weight, gate, of_gate = given(6)
    (n, height, width, inputs), outputs, itself = stage.x, stage.y[3], itemsize(stage.dtype)
    at = pointwise.sides(inputs, outputs, alone=True)
    for j, stop, _ in pointwise.panels(inputs, stage.dtype):
        to.task()
        shape, rows_and_columns = (outputs, stop - j), ((0, outputs), (j, stop))
        chain, total = pointwise.chain_and_total(to, outputs * (stop - j), stage.dtype)
        for i in range(samples or n):
            span = i * height * width, (i + 1) * height * width
            pointwise.outer_calls(to, at, stage.dtype, (gy, x), *rows_and_columns, span, chain, stop - j, True)
            own = weight + j * itself, inputs, gate + (i * inputs + j) * itself, of_gate + (i * inputs + j) * 8
            to.call(channels.gate_gradient(stage.dtype), chain, total, *shape, *own, i == 0)
        to.call(rounding.round_sum(stage.dtype, True), total, *shape, gw + j * itself, inputs, 1)
