"""Backward of a program: its stages from the last to the first.

The gradient of a map is written over the map, once nothing will read the map any more: the
convolution that kept it has made its weight gradient by then. So beyond what was kept, backward
holds little more than the gradients it returns.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, as_rows, positions
from minitl.bits import unpack
from minitl.fused.forward import Kept, folded, taps_first
from minitl.fused.program import CODES, Program, Squeeze, Stage, Values
from minitl.fused.samples import Map, Part, Samples
from minitl.kernels import blas, channels, conv, depthwise, elementwise, inplace
from minitl.kernels.matmul import matmul
from minitl.parameters import Parameter
from minitl.records import OpRecord

ByParameter = dict[Parameter, Array]


def backward(
    program: Program, kept: Kept, gy: Array, values: Values, work: Samples
) -> tuple[Array | None, ByParameter]:
    """The input's gradient, where it is wanted, and those of the trained parameters. Uses up what was kept."""
    run = _Backward(program, kept, values, work)
    with blas.one_thread():
        return run(gy), run.gradients


class _Backward:
    def __init__(self, program: Program, kept: Kept, values: Values, work: Samples) -> None:
        self.program, self.kept, self.values, self.work = program, kept, values, work
        self.gradients: ByParameter = {}

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
            packed = self.kept[act, "codes" if bits > 1 else "mask"]
            work.each(lambda part: inplace.keep_where_one(as_rows(g[part]), packed, bits, part.start * area))
        else:
            x = Map(self.kept[act, "x"])
            work.each(lambda part: elementwise.hard_swish_backward(*(m[part].reshape(-1) for m in (x, g, g))))
        return g

    def norm(self, stage: Stage, norm: OpRecord, gy: Map, *, own: bool) -> Map:
        """The gradients of shift and scale; with batch statistics also that of the norm's input, else gy as it is."""
        work, beta = self.work, norm.parameters[1]
        total = work.partial(stage.shape[-1])
        if stage.batch or norm.needs[2]:
            work.each(lambda part: inplace.sums(as_rows(gy[part]), total[part.number]))
        if stage.batch:
            return self.batch_norm(stage, norm, gy, total, own=own)
        if norm.needs[2]:
            work.afterwards(lambda: self.gradients.update({beta: total.sum(0).astype(work.dtype)}))
        return gy

    def batch_norm(self, stage: Stage, norm: OpRecord, gy: Map, total: Array, *, own: bool) -> Map:
        """gx = gamma inv_std (gy - sum gy / m - x_hat sum (gy x_hat) / m), over gy or else over x_hat."""
        work, c, m = self.work, stage.shape[-1], positions(stage.shape)
        gamma, beta = norm.parameters[:2]
        along = work.partial(c)
        of_gy, of_x_hat, shift = (np.empty(c, work.dtype) for _ in range(3))
        x_hat = Map(self.kept.get((norm, "x_hat"), gy.array))

        def settle() -> None:
            sums, products = total.sum(0), along.sum(0)
            if norm.needs[1]:
                self.gradients[gamma] = products.astype(work.dtype)
            if norm.needs[2]:
                self.gradients[beta] = sums.astype(work.dtype)
            if norm.needs[0]:
                scale = self.values[gamma] * self.kept[norm, "inv_std"].astype(np.float64)
                of_gy[:], of_x_hat[:], shift[:] = scale, -scale * products / m, -scale * sums / m

        if norm.needs[0] or norm.needs[1]:
            work.each(lambda part: inplace.dots(as_rows(gy[part]), as_rows(x_hat[part]), along[part.number]))
        work.afterwards(settle)
        work.together()
        if not norm.needs[0]:
            return gy
        g = gy if own else x_hat
        work.each(
            lambda part: channels.affine_sum(
                as_rows(gy[part]), of_gy, as_rows(x_hat[part]), of_x_hat, shift, as_rows(g[part])
            )
        )
        return g

    def weight(self, stage: Stage, g: Map) -> None:
        """The convolution's weight gradient: a product over all samples, or for k x k a sum over the parts."""
        work, parameter = self.work, stage.conv.parameters[0]
        if not stage.conv.needs[1]:
            return
        x, shape = Map(self.kept[stage.conv, "x"]), parameter.value.shape
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
        gx = Map(self.kept[conv_record, "x"]) if over else work.whole(conv_record.shapes[0])
        weight, _, _ = folded(stage, self.values, work)
        if stage.kind == "pointwise_conv":
            work.each(lambda part: np.matmul(as_rows(g[part]), weight[:, :, 0, 0], out=as_rows(gx[part])))
            return gx
        taps, stride = taps_first(weight, work), conv_record.attrs.get("stride", 1)
        kernel = depthwise.grad_input if stage.kind == "depthwise_conv" else conv.grad_input
        work.each(lambda part: kernel(g[part], taps, stride, gx[part]))
        return gx

    def excite(self, se: Squeeze, g: Map) -> None:
        """Through the gate and through the means it was made of, in place; and the gradients of its two layers."""
        n, _, _, c = se.pool.shapes[0]
        work, squeezed, area = self.work, len(se.fc1.parameters[0].value), positions(se.pool.shapes[0][1:])
        x, gate = Map(self.kept[se.scale, "x"]), self.kept[se.scale, "gate"]
        inner, outer = self.kept[se.act, "mask"], self.kept[se.gate, "mask"]
        w1, w2 = (self.values[fc.parameters[0]] for fc in (se.fc1, se.fc2))
        slopes1, slopes2 = work.allocate((n, squeezed), work.dtype), work.allocate((n, c), work.dtype)

        def step(part: Part) -> None:
            own, along = slice(part.start, part.stop), np.empty(c)
            for sample, values, slope in zip(g[part], x[part], slopes2[own], strict=True):
                inplace.dots(as_rows(sample), as_rows(values), along)
                slope[:] = along / 6
            slopes2[own] *= unpack(outer, 1, (n, c))[own]
            slopes1[own] = (slopes2[own] @ w2[:, :, 0, 0]) * unpack(inner, 1, (n, squeezed))[own]
            more = slopes1[own] @ w1[:, :, 0, 0] / area
            for sample, factors, rest in zip(g[part], gate[own, 0, 0], more.astype(work.dtype), strict=True):
                inplace.gate_and_add(as_rows(sample), factors, rest)

        def collect() -> None:
            for fc, slopes in ((se.fc1, slopes1), (se.fc2, slopes2)):
                if fc.needs[1]:
                    self.gradients[fc.parameters[0]] = (slopes.T @ as_rows(self.kept[fc, "x"]))[:, :, None, None]
                if fc.needs[2]:
                    self.gradients[fc.parameters[1]] = slopes.sum(0)

        work.each(step)
        work.afterwards(collect)
