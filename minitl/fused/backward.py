"""Backward of a program: its stages from the last to the first.

The gradient of a map is written over the map, once nothing will read the map any more: the
convolution that kept it has made its weight gradient by then. So beyond what was kept, backward
holds little more than the gradients it returns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl.arrays import Array, as_rows, positions
from minitl.fused.forward import folded, taps_first
from minitl.fused.program import CODES, Run, Squeeze, Stage, Values
from minitl.fused.samples import Map, Part, Samples
from minitl.kernels import blas, conv, depthwise, inplace
from minitl.kernels.matmul import matmul
from minitl.ops.op import Gradients
from minitl.parameters import Parameter
from minitl.records import OpRecord

ByParameter = dict[Parameter, Array]
WalkBack = Callable[[OpRecord, Array], Gradients]


def backward(
    run: Run, gy: Array, values: Values, work: Samples, walk_back: WalkBack
) -> tuple[Array | None, ByParameter]:
    """The input's gradient, where it is wanted, and those of the trained parameters. Uses up what was kept.

    `walk_back` gives the gradients of a single record.
    """
    walk = _Backward(run, values, work, walk_back)
    with blas.one_thread():
        return walk(gy), walk.gradients


class _Backward:
    def __init__(self, run: Run, values: Values, work: Samples, walk_back: WalkBack) -> None:
        self.program, self.records, self.values, self.work = run.program, run.records, values, work
        self.walk_back = walk_back
        self.gradients: ByParameter = {}

    def kept(self, record: OpRecord, tensor: str) -> Array:
        """What the record kept under that name."""
        return self.records[record].saved[tensor]

    def __call__(self, gy: Array) -> Array | None:
        first, g = self.program.stages[0], Map(gy)
        for stage in reversed(self.program.stages):
            if stage.act and stage.act.needs[0]:
                g = self.activation(stage.act, g, own=g.array is not gy)
            if stage.norm:
                g = self.norm(stage, stage.norm, g, own=g.array is not gy)
            self.weight(stage, g)
            if not stage.conv.needs[0]:
                self.work.together()
                return None
            g = self.input(stage, g, fresh=stage is first)
            if stage.squeeze:
                self.excite(stage.squeeze, g)
        if self.program.residual:
            whole = Map(gy)
            self.work.each(lambda part: np.add(g[part], whole[part], out=g[part]))
        self.work.together()
        return g.array

    def activation(self, act: OpRecord, gy: Map, *, own: bool) -> Map:
        """Times the slope; in place where the map is our own."""
        g, work = gy, self.work
        if not own:
            g = work.whole(act.shapes[0])
            work.each(lambda part: np.copyto(g[part], gy[part]))
        if (act.name, act.rule) in CODES:
            bits, area = CODES[act.name, act.rule][0], positions(act.shapes[0][1:])
            packed = self.kept(act, "codes" if bits > 1 else "mask")
            work.each(lambda part: inplace.keep_where_one(as_rows(g[part]), packed, bits, part.start * area))
        else:
            x = Map(self.kept(act, "x"))
            work.each(lambda part: inplace.hard_swish_slope(as_rows(g[part]), as_rows(x[part])))
        return g

    def norm(self, stage: Stage, norm: OpRecord, gy: Map, *, own: bool) -> Map:
        """The gradients of shift and scale; with batch statistics also that of the norm's input, else gy as it is."""
        if stage.batch:
            return self.batch_norm(stage, norm, gy, own=own)
        if norm.needs[2]:
            work, beta, total = self.work, norm.parameters[1], self.work.partial(stage.shape[-1])
            work.each(lambda part: inplace.sums(as_rows(gy[part]), total[part.number]))
            work.afterwards(lambda: self.gradients.update({beta: total.sum(0).astype(work.dtype)}))
        return gy

    def batch_norm(self, stage: Stage, norm: OpRecord, gy: Map, *, own: bool) -> Map:
        """gx = gamma inv_std (gy - sum gy / m - x_hat sum (gy x_hat) / m), over gy or else over x_hat."""
        work, c, m = self.work, stage.shape[-1], positions(stage.shape)
        gamma, beta = norm.parameters[:2]
        total, along = work.partial(c), work.partial(c)
        of_gy, of_x_hat, shift = (np.empty(c, work.dtype) for _ in range(3))
        x_hat = Map(self.kept(norm, "x_hat")) if norm.needs[0] or norm.needs[1] else gy

        def settle() -> None:
            sums, products = total.sum(0), along.sum(0)
            if norm.needs[1]:
                self.gradients[gamma] = products.astype(work.dtype)
            if norm.needs[2]:
                self.gradients[beta] = sums.astype(work.dtype)
            if norm.needs[0]:
                scale = self.values[gamma] * self.kept(norm, "inv_std").astype(np.float64)
                of_gy[:], of_x_hat[:], shift[:] = scale, -scale * products / m, -scale * sums / m

        work.each(
            lambda part: inplace.sums_and_dots(
                as_rows(gy[part]), as_rows(x_hat[part]), total[part.number], along[part.number]
            )
        )
        work.afterwards(settle)
        work.together()
        if not norm.needs[0]:
            return gy
        if own:
            work.each(lambda part: inplace.combine(as_rows(gy[part]), of_gy, as_rows(x_hat[part]), of_x_hat, shift))
            return gy
        work.each(lambda part: inplace.combine(as_rows(x_hat[part]), of_x_hat, as_rows(gy[part]), of_gy, shift))
        return x_hat

    def weight(self, stage: Stage, g: Map) -> None:
        """The convolution's weight gradient: a product over all samples, or for k x k a sum over the parts."""
        work, parameter = self.work, stage.conv.parameters[0]
        if not stage.conv.needs[1]:
            return
        x, shape = Map(self.kept(stage.conv, "x")), parameter.value.shape
        _, _, scale = folded(stage, self.values, work)
        gw = work.allocate(shape, work.dtype)
        self.gradients[parameter] = gw
        if stage.kind == "pointwise_conv":
            work.afterwards(lambda: matmul(as_rows(g.array).T, as_rows(x.array), gw.reshape(shape[:2])))
        else:
            outputs, inputs, *window = shape
            taps = (*window, outputs) if inputs == 1 else (*window, inputs, outputs)
            partial, stride = work.allocate((len(work.parts), *taps), work.dtype), stage.conv.attrs.get("stride", 1)
            kernel = depthwise.grad_weight if stage.kind == "depthwise_conv" else conv.grad_weight

            def collect() -> None:
                total = partial.sum(0).reshape(*window, inputs, outputs)
                np.copyto(gw, total.transpose(3, 2, 0, 1))

            work.each(lambda part: kernel(x[part], g[part], stride, partial[part.number]))
            work.afterwards(collect)
        if not stage.batch:
            work.afterwards(lambda: np.multiply(gw, scale[:, None, None, None], out=gw))
        if stage.kind == "pointwise_conv":
            work.together()

    def input(self, stage: Stage, g: Map, *, fresh: bool) -> Map:
        """The convolution's input gradient: over the input that was kept for the weight's, or in a new map."""
        conv_record, work = stage.conv, self.work
        over = conv_record.needs[1] and not fresh
        gx = Map(self.kept(conv_record, "x")) if over else work.whole(conv_record.shapes[0])
        weight, _, _ = folded(stage, self.values, work)
        if stage.kind == "pointwise_conv":
            work.each(lambda part: np.matmul(as_rows(g[part]), weight[:, :, 0, 0], out=as_rows(gx[part])))
            return gx
        taps, stride = taps_first(weight, work), conv_record.attrs.get("stride", 1)
        kernel = depthwise.grad_input if stage.kind == "depthwise_conv" else conv.grad_input
        work.each(lambda part: kernel(g[part], taps, stride, gx[part]))
        return gx

    def excite(self, se: Squeeze, g: Map) -> None:
        """Through the gate and through the means it was made of, in place; between the two, op by op."""
        work, shape, area = self.work, se.pool.shapes[0], positions(se.pool.shapes[0][1:])
        x, gate = Map(self.kept(se.scale, "x")), self.kept(se.scale, "gate")
        dots = slopes = work.allocate((shape[0], 1, 1, shape[3]), work.dtype)
        work.each(
            lambda part: inplace.sample_dots(g[part], x[part], np.empty(shape[3]), dots[part.start : part.stop, 0, 0])
        )
        work.together()
        for record in (se.gate, se.fc2, se.act, se.fc1):
            below, *gradients = self.walk_back(self.records[record], slopes)
            assert below is not None
            slopes = below
            for parameter, gradient in zip(record.parameters, gradients, strict=True):
                if gradient is not None:
                    self.gradients[parameter] = gradient

        def step(part: Part) -> None:
            own = slice(part.start, part.stop)
            inplace.gate_and_add(g[part], gate[own, 0, 0], slopes[own, 0, 0] / slopes.dtype.type(area))

        work.each(step)
