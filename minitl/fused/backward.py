"""Backward of a program: its stages from the last to the first.

The gradient of a map is written over the map, once nothing will read the map any more: the
convolution that kept it has made its weight gradient by then. So beyond what was kept, backward
holds little more than the gradients it returns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl.arrays import Array, as_rows, positions, size
from minitl.fused.forward import affine, folded, taps_first
from minitl.fused.program import CODES, KEEPS_OUTPUT, TOPS, Run, Squeeze, Stage, Values
from minitl.fused.samples import Map, Part, Samples
from minitl.kernels import blas, conv, depthwise, inplace
from minitl.kernels.matmul import matmul
from minitl.ops.op import Gradients
from minitl.parameters import Parameter
from minitl.records import OpRecord

FEW_PARTS = 2  # of so few a weight gradient is summed; of more it is one product, which takes less memory

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
        g, stages = Map(gy), self.program.stages
        for stage, below in zip(reversed(stages), (*reversed(stages[:-1]), None), strict=True):
            if stage.act and stage.act.needs[0]:
                g = self.activation(stage.act, g, own=g.array is not gy)
            if stage.norm:
                g = self.norm(stage, stage.norm, g, own=g.array is not gy)
            if stage.gated and stage.squeeze:
                g = self.gated(stage, stage.squeeze, g)
                continue
            self.weight(stage, g)
            if not stage.conv.needs[0]:
                self.work.together()
                return None
            g = self.input(stage, g, below)
            if stage.squeeze and stage.squeeze.scale:
                self.excite(stage.squeeze, stage.squeeze.scale, g)
        if self.program.residual:
            whole = Map(gy)
            self.work.each(lambda part: np.add(g[part], whole[part], out=g[part]), size(stages[0].conv.shapes[0]))
        self.work.together()
        return g.array

    def activation(self, act: OpRecord, gy: Map, *, own: bool) -> Map:
        """Times the slope; in place where the map is our own."""
        g, work = gy, self.work
        if (act.name, act.rule) in KEEPS_OUTPUT:
            return self.activation_over_output(act, gy)
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

    def activation_over_output(self, act: OpRecord, gy: Map) -> Map:
        """Times the slope read off the output, and written over it."""
        y, area = Map(self.kept(act, "y")), positions(act.shapes[0][1:])
        swish, top = act.name == "hard_swish", TOPS[act.name]
        packed = self.kept(act, "mask") if swish else np.empty((1, 1), np.uint8)

        def step(part: Part) -> None:
            inplace.slope_over_output(as_rows(y[part]), as_rows(gy[part]), swish, top, packed, part.start * area)

        self.work.each(step)
        return y

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
            ),
            size(stage.shape),
        )
        work.afterwards(settle)
        work.together()
        if not norm.needs[0]:
            return gy
        if own:
            out, z, of_out, of_z = gy, x_hat, of_gy, of_x_hat
        else:
            out, z, of_out, of_z = x_hat, gy, of_x_hat, of_gy
        work.each(
            lambda part: inplace.combine(as_rows(out[part]), of_out, as_rows(z[part]), of_z, shift), size(stage.shape)
        )
        return out

    def weight(self, stage: Stage, g: Map) -> None:
        """The convolution's weight gradient: a product over all samples, or for k x k a sum over the parts."""
        work, parameter = self.work, stage.conv.parameters[0]
        if not stage.conv.needs[-1]:
            return
        x, shape = Map(self.kept(stage.conv, "x")), parameter.value.shape
        scale, _ = affine(stage, self.values, work.dtype)
        gw = work.allocate(shape, work.dtype)
        self.gradients[parameter] = gw
        if stage.kind == "pointwise_conv" and work.pieces <= FEW_PARTS:
            others = work.allocate((work.pieces - 1, *shape), work.dtype)

            def product(part: Part) -> None:
                out = others[part.number - 1] if part.number else gw
                np.matmul(as_rows(g[part]).T, as_rows(x[part]), out=out.reshape(shape[:2]))

            def add_up() -> None:
                for other in others:
                    np.add(gw, other, out=gw)

            work.each(product)
            work.afterwards(add_up)
        elif stage.kind == "pointwise_conv":
            work.afterwards(lambda: matmul(as_rows(g.array).T, as_rows(x.array), gw.reshape(shape[:2])))
        elif stage.kind == "depthwise_conv":
            self.depthwise_weight(stage, x, g, gw)
        else:
            taps = work.allocate((*shape[2:], shape[1], shape[0]), work.dtype)
            passing = conv.grad_weight_workspace(stage.shape, taps.shape, taps.dtype.itemsize)
            stride = stage.conv.attrs.get("stride", 1)
            work.alone(lambda: conv.grad_weight(x.array, g.array, stride, taps), passing)
            work.afterwards(lambda: np.copyto(gw, taps.transpose(3, 2, 0, 1)))
        if not stage.batch:
            work.afterwards(lambda: np.multiply(gw, scale[:, None, None, None], out=gw))
        if stage.kind == "pointwise_conv" and work.pieces > FEW_PARTS:
            work.together()

    def depthwise_weight(self, stage: Stage, x: Map, g: Map, gw: Array) -> None:
        """A sum over the parts."""
        work, stride = self.work, stage.conv.attrs.get("stride", 1)
        c, _, *window = gw.shape
        rooms = depthwise.summing_rooms(x.array, stage.shape, window[0], stride, len(work.spans), work.array)
        shape = (work.pieces, *window, c)
        total = work.array(shape, lambda: np.zeros(shape), "float64")
        work.each(lambda part: depthwise.add_products(x[part], g[part], stride, rooms, part.place, total[part.number]))
        work.afterwards(lambda: np.copyto(gw[:, 0], total.sum(0).transpose(2, 0, 1)))

    def input(self, stage: Stage, g: Map, below: Stage | None) -> Map:
        """The convolution's input gradient."""
        gx, (scale, _) = self.room(stage, below), affine(stage, self.values, self.work.dtype)
        weight = folded(stage, scale, self.values, self.work)
        if stage.kind == "pointwise_conv":
            self.work.each(lambda part: np.matmul(as_rows(g[part]), weight[:, :, 0, 0], out=as_rows(gx[part])))
            return gx
        taps, stride = taps_first(stage, weight, self.work), stage.conv.attrs.get("stride", 1)
        if stage.kind == "depthwise_conv":
            prepared = depthwise.prepare(taps, stage.shape, stride, self.work.array, back=True)
            self.work.each(lambda part: depthwise.correlate_back(g[part], prepared, stride, gx[part]))
        else:
            self.work.alone(lambda: conv.grad_input(g.array, taps, stride, gx.array), 0)
        return gx

    def room(self, stage: Stage, below: Stage | None) -> Map:
        """Where the gradient of a convolution's input goes.

        Over that input, which was kept for the weight's; but not over the network's own, nor where the
        activation below has yet to read it: then it is needed only for a moment.
        """
        record = stage.conv
        scaled = stage.squeeze is not None and stage.squeeze.scale is not None
        if below and below.keeps_output and not scaled:
            return self.work.scratch(record.shapes[0])
        return Map(self.kept(record, "x")) if below and record.needs[-1] else self.work.whole(record.shapes[0])

    def excite(self, se: Squeeze, scale: OpRecord, g: Map) -> None:
        """Through the gate and through the means it was made of, in place."""
        work, shape = self.work, scale.shapes[0]
        x, gate = Map(self.kept(scale, "x")), self.kept(scale, "gate")
        dots = work.allocate((shape[0], 1, 1, shape[3]), work.dtype)

        def step(part: Part) -> None:
            inplace.sample_dots(g[part], x[part], np.empty(shape[3]), dots[part.start : part.stop, 0, 0])

        work.each(step)
        work.together()
        self.spread(se, dots, gate, g)

    def gated(self, stage: Stage, se: Squeeze, g: Map) -> Map:
        """All gradients of a convolution that takes the gate: with G_n = g_n^T x_n, see `ops.gated_conv`."""
        work, record, shape = self.work, stage.conv, stage.conv.shapes[0]
        x, gate = Map(self.kept(record, "x")), self.kept(record, "gate")
        scale, _ = affine(stage, self.values, work.dtype)
        weight = folded(stage, scale, self.values, work)
        outputs, inputs = weight.shape[:2]
        dots = work.allocate((shape[0], 1, 1, inputs), work.dtype)
        partial, products = (work.allocate((k, outputs, inputs), work.dtype) for k in (work.pieces, len(work.spans)))

        def step(part: Part) -> None:
            product, total, sums, along = products[part.place], partial[part.number], np.empty(inputs), np.empty(inputs)
            total[:] = 0
            for n, slopes, image in zip(range(part.start, part.stop), g[part], x[part], strict=True):
                np.matmul(as_rows(slopes).T, as_rows(image), out=product)
                inplace.sums_and_dots(product, weight[:, :, 0, 0], sums, along)
                dots[n, 0, 0] = along
                product *= gate[n, 0, 0]
                total += product

        def collect() -> None:
            total = partial.sum(0) * scale[:, None]
            self.gradients[record.parameters[0]] = total.reshape(weight.shape)

        work.each(step)
        work.afterwards(collect)
        work.together()
        gx = work.scratch(shape)

        def pass_on(part: Part) -> None:
            gated = products[part.place]
            for n, slopes, out in zip(range(part.start, part.stop), g[part], gx[part], strict=True):
                np.multiply(weight[:, :, 0, 0], gate[n, 0, 0], out=gated)
                np.matmul(as_rows(slopes), gated, out=as_rows(out))

        work.each(pass_on)
        self.spread(se, dots, np.ones((shape[0], 1, 1, inputs), work.dtype), gx)
        return gx

    def spread(self, se: Squeeze, slopes: Array, gate: Array, g: Map) -> None:
        """g = gate g + what comes back through the means, given the gate's own gradient; the gate's layers op by op."""
        work, area = self.work, positions(se.pool.shapes[0][1:])
        for record in reversed(se.layers):
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
