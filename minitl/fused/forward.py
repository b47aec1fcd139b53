"""Forward of a program.

The scale of a frozen norm is multiplied into the convolution's weights, and its shift is added
with the activation, in place. A norm with batch statistics waits for all samples, and then turns
its input into x_hat, in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minitl.arrays import Array, as_rows, positions, size
from minitl.bits import packed_shape
from minitl.fused.program import CODES, KEEPS_INPUT, NO_CODES, TOPS, Program, Squeeze, Stage, Values
from minitl.fused.samples import Map, Part, Samples
from minitl.kernels import blas, conv, depthwise, inplace
from minitl.ops.conv import taps_first as dense_taps
from minitl.ops.depthwise_conv import taps_first as depthwise_taps
from minitl.ops.frozen_norm import scale_and_shift
from minitl.ops.op import Attrs, Op
from minitl.records import OpRecord, Record
from minitl.saved import Saved

Kept = dict[tuple[Record, str], Array]  # by record and tensor
RunOp = Callable[[Op, Sequence[Array], Attrs, Sequence[bool], str], tuple[Array, Saved]]


def forward(program: Program, x: Array, values: Values, work: Samples, run_op: RunOp) -> tuple[Array, Kept]:
    """The program's output for x, and all that its records may keep. `run_op` computes a single op."""
    with blas.one_thread():
        return _Forward(program, values, work, run_op)(x)


def affine(stage: Stage, values: Values, dtype: str) -> tuple[Array, Array]:
    """The scale and the shift of a frozen norm; 1 and 0 where the norm takes the statistics of the batch."""
    if stage.batch:
        return np.ones(stage.shape[-1], dtype), np.zeros(stage.shape[-1], dtype)
    scale, shift = scale_and_shift([values[p] for p in stage.norm_parameters], stage.eps)
    return scale.astype(dtype), shift.astype(dtype)


def folded(stage: Stage, scale: Array, values: Values, work: Samples) -> Array:
    """The weight times the scale of a frozen norm."""
    weight = values[stage.conv.parameters[0]]
    return weight if stage.batch else work.array(weight.shape, lambda: weight * scale[:, None, None, None])


def taps_first(stage: Stage, weight: Array, work: Samples) -> Array:
    """The weight of a k x k convolution as its kernels read it."""
    outputs, inputs, *window = weight.shape
    if stage.kind == "depthwise_conv":
        return work.array((*window, outputs), lambda: depthwise_taps(weight))
    return work.array((*window, inputs, outputs), lambda: dense_taps(weight))


class _Forward:
    def __init__(self, program: Program, values: Values, work: Samples, run_op: RunOp) -> None:
        self.program, self.values, self.work, self.run_op = program, values, work, run_op
        self.kept: Kept = {}

    def __call__(self, x: Array) -> tuple[Array, Kept]:
        first = h = Map(x)
        stages = self.program.stages
        for stage, above in zip(stages, (*stages[1:], None), strict=True):
            if stage.squeeze:
                h = self.excite(stage, stage.squeeze, h)
            passing = not self.program.trains and above and not above.squeeze  # read at once, and never again
            h = self.stage(stage, h, scratch=bool(passing))
        if self.program.residual:
            self.work.each(lambda part: np.add(h[part], first[part], out=h[part]), size(stages[-1].shape))
        self.work.together()
        return h.array, self.kept

    def stage(self, stage: Stage, x: Map, *, scratch: bool) -> Map:
        """Convolution, norm, activation."""
        out = self.work.scratch(stage.shape) if scratch else self.work.whole(stage.shape)
        self.kept[stage.conv, "x"] = x.array
        scale, shift = affine(stage, self.values, self.work.dtype)
        weight = folded(stage, scale, self.values, self.work)
        if stage.gated:
            self.convolve_gated(x, self.kept[stage.conv, "gate"], weight, out)
        else:
            self.convolve(stage, x, weight, out)
        del weight
        if stage.batch:
            out = self.batch_norm(stage, out)
        if stage.act:
            return self.activation(stage.act, out, shift)
        if not stage.batch:
            self.add(shift, out)
        return out

    def add(self, shift: Array, x: Map) -> None:
        """x += shift."""
        self.work.each(lambda part: np.add(x[part], shift, out=x[part]))

    def convolve(self, stage: Stage, x: Map, weight: Array, out: Map) -> None:
        """out = x convolved with the weight (O, I, k, k)."""
        if stage.kind == "pointwise_conv":
            self.work.each(lambda part: np.matmul(as_rows(x[part]), weight[:, :, 0, 0].T, out=as_rows(out[part])))
            return
        taps, stride = taps_first(stage, weight, self.work), stage.conv.attrs.get("stride", 1)
        if stage.kind == "depthwise_conv":
            prepared = depthwise.prepare(taps, stage.shape, stride, self.work.array)
            self.work.each(lambda part: depthwise.correlate(x[part], prepared, stride, out[part]))
            return
        itemsize = weight.dtype.itemsize
        self.work.alone(
            lambda: conv.forward(x.array, taps, stride, out.array), conv.workspace(stage.shape, taps.shape, itemsize)
        )

    def convolve_gated(self, x: Map, gate: Array, weight: Array, out: Map) -> None:
        """out_n = x_n convolved with gate_n weight, sample by sample: the gated map is never built."""
        rooms = self.work.allocate((len(self.work.spans), *weight.shape[:2]), self.work.dtype)

        def step(part: Part) -> None:
            gated = rooms[part.place]
            for image, factors, y in zip(x[part], gate[part.start : part.stop, 0, 0], out[part], strict=True):
                np.multiply(weight[:, :, 0, 0], factors, out=gated)
                np.matmul(as_rows(image), gated.T, out=as_rows(y))

        self.work.each(step)

    def batch_norm(self, stage: Stage, x: Map) -> Map:
        """Turn x into x_hat, when all samples are there, and make weight x_hat + bias of it."""
        norm, c, work = stage.norm, stage.shape[-1], self.work
        assert norm
        gamma, beta, running_mean, running_var = (self.values[p] for p in stage.norm_parameters)
        means, squares = work.partial(c), work.partial(c)
        mean, inv_std = np.empty(c, work.dtype), work.allocate((c,), work.dtype)

        def settle() -> None:
            counts = np.array([part.stop - part.start for part in work.parts]) * positions(stage.shape[1:])
            middle, total, m = np.empty(c), np.empty(c), positions(stage.shape)
            inplace.join_moments(counts, means, squares, middle, total)
            mean[:], inv_std[:] = middle, 1.0 / np.sqrt(total / m + stage.eps)
            running_mean[:] += norm.attrs["momentum"] * (middle - running_mean)
            running_var[:] += norm.attrs["momentum"] * (total / (m - 1) - running_var)

        n = size(stage.shape)
        work.each(lambda part: inplace.moments(as_rows(x[part]), means[part.number], squares[part.number]), n)
        work.afterwards(settle)
        work.together()
        y = work.whole(stage.shape)
        work.each(lambda part: inplace.normalise(as_rows(x[part]), mean, inv_std, gamma, beta, as_rows(y[part])), n)
        self.kept[norm, "x_hat"], self.kept[norm, "inv_std"] = x.array, inv_std
        return y

    def activation(self, act: OpRecord, x: Map, shift: Array) -> Map:
        """act(x + shift): in place, unless x + shift is to be kept. Packs codes where the rule keeps them."""
        out, work, wanted = x, self.work, act.needs[0]
        bits, borders = CODES.get((act.name, act.rule), NO_CODES) if wanted else NO_CODES
        packed = np.empty((1, 1), np.uint8)
        if bits:
            shape = packed_shape(act.shapes[0], bits)
            packed = work.array(shape, lambda: np.zeros(shape, np.uint8), "uint8")
            self.kept[act, "codes" if bits > 1 else "mask"] = packed
        if wanted and (act.name, act.rule) in KEEPS_INPUT:
            self.add(shift, x)
            self.kept[act, "x"] = x.array
            out, shift = work.whole(act.shapes[0]), np.zeros_like(shift)
            work.each(lambda part: np.copyto(out[part], x[part]))
        self.kept[act, "y"] = out.array
        limits, edges = np.array(borders), work.partial(packed.shape[1], dtype="uint8")
        swish, top, area = act.name == "hard_swish", TOPS[act.name], positions(act.shapes[0][1:])

        def step(part: Part) -> None:
            inplace.activate(
                as_rows(out[part]), shift, swish, top, bits, limits, packed, edges[part.number], part.start * area
            )

        def join() -> None:
            for part in work.parts:
                packed[part.start * area * bits // 8] |= edges[part.number]

        work.each(step)
        if bits:
            work.afterwards(join)
        return out

    def excite(self, stage: Stage, se: Squeeze, x: Map) -> Map:
        """The map times a gate for each sample and channel, unless the convolution after it takes the gate.

        The layers that make the gate, of the map's means, are small: they run op by op on all samples.
        """
        work, shape = self.work, se.pool.shapes[0]
        means = gate = work.allocate((shape[0], 1, 1, shape[3]), work.dtype)
        work.each(lambda part: inplace.means(x[part], np.empty(shape[3]), means[part.start : part.stop, 0, 0]))
        work.together()
        for record in se.layers:
            gate, saved = self.run(record, gate)
            self.kept |= {(record, tensor): buffer.array for tensor, buffer in saved.buffers.items()}
        self.kept[se.scale or stage.conv, "gate"] = gate
        if se.scale is None:
            return x
        out = work.whole(shape) if self.program.trains else x
        work.each(lambda part: np.multiply(x[part], gate[part.start : part.stop], out=out[part]))
        self.kept[se.scale, "x"] = x.array
        return out

    def run(self, record: OpRecord, x: Array) -> tuple[Array, Saved]:
        """An op by itself."""
        arrays = (x, *(self.values[p] for p in record.parameters))
        return self.run_op(record.op, arrays, record.attrs, record.needs, record.rule)
