"""A stage's kernel calls on some rows of one sample. The kernels are the ops' own.

Places of maps are of the batch's first position; `filters` is a convolution's weight as its kernel reads it.
"""

from __future__ import annotations

from minitl import ops
from minitl.arrays import Array, itemsize, positions, size
from minitl.fused.links import Band, Rows
from minitl.fused.plan import Slot, Tasks
from minitl.fused.program import Stage
from minitl.kernels import dense, depthwise, elementwise, pointwise
from minitl.kernels.channels import ADD, ONE
from minitl.kernels.compile import Lazily
from minitl.kernels.groups import group_size
from minitl.kernels.pointwise import NO_END, End
from minitl.kernels.sums import join_groups
from minitl.kernels.tasks import Place, Recorder
from minitl.ops.norms.frozen_norm import SCALE_AND_SHIFT
from minitl.records import OpRecord

channels, sums = Lazily("minitl.kernels.compiled.channels"), Lazily("minitl.kernels.compiled.sums")
pixels = Lazily("minitl.kernels.compiled.pixels")

SMALL = 16  # times that a weight must fit into a group's map for its gradient to be added up group by group


def filter_size(conv: OpRecord, dtype: str, *, back: bool = False) -> int:
    """Numbers in the weight as the convolution (or its input gradient) reads it."""
    weight = conv.parameters[0].value.shape
    if conv.op is ops.conv:
        return dense.panels_size(weight, dtype)
    return size(weight) if conv.op is ops.depthwise_conv else pointwise.packed_size(weight[:2], dtype, not back)


def filters(tasks: Tasks, conv: OpRecord, *, back: bool = False) -> Slot:
    """The weight as the convolution, or its input gradient (`back`), reads it: one of the tasks."""
    plan = tasks.plan
    dtype, weight = plan.dtype, plan.values[conv.parameters[0]]
    out = plan.new((filter_size(conv, dtype, back=back),))
    shape = weight.shape

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


def convolve(
    to: Recorder, stage: Stage, band: Band, dtype: str, x: Place, filters: Place, y: Place, end: End = NO_END
) -> None:
    """y = conv(x) for a band of y, and what it `end`s with."""
    itself = itemsize(dtype)
    if stage.pointwise:
        pointwise.product_calls(to, band.span, stage.x[3], stage.y[3], dtype, (x, filters, y), end=end)
        return
    places = x + band.n * size(stage.x[1:]) * itself, filters, y + band.n * size(stage.y[1:]) * itself
    if stage.depthwise:
        depthwise.forward_call(to, stage.window, stage.x[3], dtype, band.rows, places, end)
    else:
        dense.forward_calls(to, stage.x, stage.y, stage.window, dtype, band.rows, places, None, end)


def as_numbers(to: Recorder, stage: Stage, band: Band, dtype: str, x: Place, table: Place, at: int = 0) -> Place:
    """Where the convolution's input is in numbers, for a band of y.

    Of images in pixels those are the rows that it reads, looked up in `table` (see `minitl.pixels`) `at` so many
    bytes into the thread's own memory.
    """
    if not stage.normalisation:
        return x
    _, height, width, channels = stage.x
    row, rows = width * channels, (band.rows[0] * stage.window.s - stage.window.top, rows_read(stage, band.rows[1]))
    first, stop = max(0, rows[0]), min(height, rows[1])
    start = (band.n * height + first) * row
    room = to.scratch((stop - first) * row * itemsize(dtype), at)
    to.call(pixels.look_up(dtype), x + start, table, room, (stop - first) * width, channels)
    return room + -start * itemsize(dtype)


def convolve_back(to: Recorder, stage: Stage, band: Band, dtype: str, gy: Place, filters: Place, gx: Place) -> None:
    """gx for a band of x."""
    itself = itemsize(dtype)
    if stage.pointwise:
        pointwise.product_calls(to, band.span, stage.y[3], stage.x[3], dtype, (gy, filters, gx))
        return
    places = gy + band.n * size(stage.y[1:]) * itself, filters, gx + band.n * size(stage.x[1:]) * itself
    depthwise.grad_input_call(to, stage.window, stage.x[3], dtype, band.rows, places)


def add(to: Recorder, band: Band, channels: int, dtype: str, a: Place, b: Place, out: Place) -> None:
    """out = a + b for a band of maps."""
    at, count = band.span[0] * channels * itemsize(dtype), (band.span[1] - band.span[0]) * channels
    ADD.call(to, ONE, count, dtype, a + at, b + at, out + at)


def pack_gated(
    to: Recorder, stage: Stage, dtype: str, weight: Place, gate: Place, n: int, panels: Place, *, back: bool
) -> None:
    """The weight times sample n's gate, in panels."""
    inputs = stage.x[3]
    factor = gate + n * inputs * itemsize(dtype)
    pointwise.pack_calls(to, (stage.y[3], inputs), dtype, not back, weight, panels, factor)


def rows_reached(stage: Stage, stop: int) -> int:
    """How many rows of y the first `stop` rows of x go into."""
    if stage.pointwise or stop == 0:
        return stop
    return min(stage.y[1], (stop - 1 + stage.window.top) // stage.window.s + 1)


def rows_read(stage: Stage, stop: int) -> int:
    """How many rows of x the first `stop` rows of y are made of."""
    if stage.pointwise:
        return stop
    return (stop - 1) * stage.window.s - stage.window.top + stage.window.k


def by_groups(stage: Stage) -> bool:
    """Whether each group's part of gW is added up along with gx: all groups' are then small beside a map."""
    if not stage.pointwise:
        return True
    group = group_size(stage.x) * positions(stage.x[1:])
    return not stage.gated and SMALL * stage.x[3] * stage.y[3] <= group * max(stage.x[3], stage.y[3])


def chain_shape(stage: Stage) -> tuple[int, ...]:
    """One group's part of gW, as it is added up."""
    weight = stage.conv.shapes[1]
    if stage.pointwise:
        at = pointwise.sides(stage.x[3], stage.y[3])
        return at.rows, at.columns
    return (*weight[2:], stage.x[3]) if stage.depthwise else dense.chain_shape(weight)


def add_to_chain(
    to: Recorder, stage: Stage, band: Band, rows: Rows, dtype: str, x: Place, gy: Place, chains: Place
) -> None:
    """gW's part of a band of x, which is that of rows `rows` of y, in the chain of the group it is of."""
    itself, group = itemsize(dtype), group_size(stage.y)
    begins, chain = band.n % group == 0 and rows[0] == 0, chains + band.n // group * size(chain_shape(stage)) * itself
    if stage.pointwise:
        at = pointwise.sides(stage.x[3], stage.y[3])
        whole = (0, at.rows), (0, at.columns)
        pointwise.outer_calls(to, at, dtype, at.order(x, gy), *whole, band.span, chain, at.columns, begins)
        return
    places = x + band.n * size(stage.x[1:]) * itself, gy + band.n * size(stage.y[1:]) * itself, chain
    if stage.depthwise:
        depthwise.grad_weight_calls(to, stage.window, stage.x[3], dtype, rows, (0, stage.x[3]), places, begins)
    else:
        dense.grad_weight_call(to, stage.x, stage.y, stage.window, dtype, rows, places, begins)


def join_chains(stage: Stage, chains: Array, total: Array, gw: Array) -> None:
    """gw = the sum of the groups' chains; `total` is room for it in float64."""
    if stage.pointwise:
        join_groups(chains, total)
        gw[:, :, 0, 0] = total.T if pointwise.sides(stage.x[3], stage.y[3]).swapped else total
    else:
        (depthwise if stage.depthwise else dense).join_chains(chains, total, gw)


def up(
    to: Recorder, stage: Stage, band: Band, size: int, norm: int, dtype: str, places: tuple[Place, ...], edges: Place
) -> None:
    """Norm, activation and codes of a band; `places` as in `elementwise.up_call`, `edges` has a row per unit.

    Of a unit, `size` samples, whose first byte of codes is the unit before's too, the bits go to its row of `edges`.
    """
    channels, per_byte = stage.y[3], 8 // (stage.codes.bits if stage.codes else 8)
    packed, unit = places[-1], band.n // size
    begins = band.span[0] == unit * size * positions(stage.y[1:])
    edge = edges + unit * channels if begins else packed + band.span[0] // per_byte * channels
    elementwise.up_call(to, band.span, channels, dtype, (norm, *stage.names), places, edge)


def grad_gated(to: Recorder, stage: Stage, dtype: str, samples: int = 0) -> None:
    """All tasks of gW and of the gate's gradient: a panel of columns each. Arrays: x, gy, gw, weight, gate, of_gate.

    G_n, a chain over a sample's positions, goes to both: summed over o with W, and over n with the gate.
    """
    x, gy, gw, weight, gate, of_gate = (Place(i) for i in range(2, 8))
    (n, height, width, inputs), outputs, itself = stage.x, stage.y[3], itemsize(dtype)
    at = pointwise.sides(inputs, outputs, alone=True)
    for j, vecs in pointwise.panel_widths(inputs, dtype):
        stop = min(j + vecs * pointwise.lanes(dtype), inputs)
        count = outputs * (stop - j)
        chain = to.scratch(count * itself)
        total = to.scratch(count * 8, offset=-(-count * itself // 64) * 64)
        to.task()
        for i in range(samples or n):
            span = i * height * width, (i + 1) * height * width
            pointwise.outer_calls(to, at, dtype, (gy, x), (0, outputs), (j, stop), span, chain, stop - j, True)
            own = weight + j * itself, inputs, gate + (i * inputs + j) * itself, of_gate + (i * inputs + j) * 8
            to.call(channels.gate_gradient(dtype), chain, total, outputs, stop - j, *own, i == 0)
        to.call(sums.round_rows(dtype), total, outputs, stop - j, gw + j * itself, inputs)
