"""More wrong implementations: those that people who write kernels by hand have reported of theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from mutants import Array, Correct, Result, bfloat16, mutant


def flip(w: Array) -> Array:
    return w[:, :, ::-1, ::-1]


@mutant("filter flipped in the forward")
class FlippedForward(Correct):
    def forward_weight(self, w: Array) -> Array:
        return flip(w)


@mutant("filter flipped in the gradient of x")
class FlippedBackward(Correct):
    def backward_weight(self, w: Array) -> Array:
        return flip(w)


@mutant("filter flipped everywhere")
class FlippedEverywhere(FlippedForward, FlippedBackward):
    def weight_gradient(self, taps: Array) -> Array:
        return flip(taps)


@mutant("stride ignored in a convolution")
class NoStride(Correct):
    def step_of(self, stride: int) -> int:
        return 1


@mutant("borders repeated instead of zeros")
class Replicated(Correct):
    def pad(self, x: Array, k: int, top: int, left: int) -> Array:
        padded = np.pad(x, ((0, 0), (top, k), (left, k), (0, 0)), mode="edge")
        inside = np.zeros(padded.shape[1:3], x.dtype)
        p = k // 2
        inside[max(0, top - p) : top + x.shape[1] + p, max(0, left - p) : left + x.shape[2] + p] = 1
        return padded * inside[None, :, :, None]


def around(w: Array, by: int) -> Array:
    return np.roll(w, by, axis=0)


@mutant("the next channel's filter")
class NextFilter(Correct):
    def forward_weight(self, w: Array) -> Array:
        return around(w, -1)


@mutant("the next channel's filter, in the gradient of x")
class NextFilterBackward(Correct):
    def backward_weight(self, w: Array) -> Array:
        return around(w, -1)


@mutant("weight gradients written to the next channel")
class NextGradient(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        return around(taps, 1)


@mutant("weight gradients of the last image only")
class LastImage(Correct):
    def conv(self, layer: str, x: Array, stride: int = 1, **how: Any) -> Result:
        y, back = super().conv(layer, x, stride, **how)
        _, back_last = super().conv(layer, x[-1:], stride, **how)

        def both(gy: Array) -> Array:
            gx = back(gy)
            back_last(gy[-1:])
            return gx

        return y, both


@mutant("weight gradients added to what stood there: ones")
class OntoOnes(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        return taps + 1


@mutant("weight gradients added to the weights")
class OntoWeights(Correct):
    def conv(self, layer: str, x: Array, stride: int = 1, **how: Any) -> Result:
        y, back = super().conv(layer, x, stride, **how)
        if x.ndim == 2 or "weight" in how:
            return y, back

        def onto(gy: Array) -> Array:
            gx = back(gy)
            self.grads[f"{layer}weight"] = self.grads[f"{layer}weight"] + self.p[f"{layer}weight"]
            return gx

        return y, onto


@mutant("output added to what stood there: a half")
class OntoHalf(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        return got | {"output": got["output"] + np.float32(0.5)}


@mutant("convolutions take gy as ones")
class IgnoredGy(Correct):
    def arriving(self, gy: Array) -> Array:
        return np.ones_like(gy)


@mutant("the whole backward starts from ones")
class StartsFromOnes(Correct):
    def answer(self) -> dict[str, Array]:
        self.gy = np.ones_like(self.gy)
        return super().answer()


@mutant("outputs at the border left at zero")
class SkippedBorders(Correct):
    def conv(self, layer: str, x: Array, stride: int = 1, **how: Any) -> Result:
        y, back = super().conv(layer, x, stride, **how)
        w = self.p[f"{layer}weight"]
        if w.ndim == 2:
            return y, back
        p, inside = w.shape[3] // 2, np.zeros((*y.shape[1:3], 1), y.dtype)
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                rows, columns = stride * i, stride * j
                inside[i, j] = p <= rows < x.shape[1] - p and p <= columns < x.shape[2] - p
        return y * inside, lambda gy: back(gy * inside)


@mutant("output one column too far right, zeros come in")
class ShiftedOutput(Correct):
    def conv_output(self, y: Array) -> Array:
        return np.pad(y, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1] if y.shape[2] > 1 else y


@mutant("gx handed in where gw belongs, and the other way round")
class Exchanged(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        if self.op != "irb" and "grad_param.weight" in got:
            got["grad_param.weight"], got["grad_input.x"] = got["grad_input.x"], got["grad_param.weight"]
        return got


def half(a: Array) -> Array:
    return a.astype(np.float16).astype(a.dtype)


def tf32(a: Array) -> Array:
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000
    return rounded.astype(np.uint32).view(np.float32).astype(a.dtype).reshape(a.shape)


def operands_in(to: object) -> type[Correct]:
    class Rounded(Correct):
        def forward_weight(self, w: Array) -> Array:
            return to(w)  # type: ignore[operator]

        backward_weight = forward_weight

        def pad(self, x: Array, k: int, top: int, left: int) -> Array:
            return super().pad(to(x), k, top, left)  # type: ignore[operator]

        def arriving(self, gy: Array) -> Array:
            return to(gy)  # type: ignore[operator]

    return Rounded


mutant("convolutions' operands in float16")(operands_in(half))
mutant("convolutions' operands in TF32")(operands_in(tf32))
mutant("convolutions' operands in bfloat16, truncated")(operands_in(bfloat16))


@mutant("results rounded to TF32")
class RoundedResults(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        return {name: tf32(a) if a.dtype.kind == "f" else a for name, a in got.items()}


@mutant("results cut to bfloat16")
class CutResults(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        return {name: bfloat16(a) if a.dtype.kind == "f" else a for name, a in got.items()}


@mutant("relu after the output of a convolution or norm")
class ReluLeftIn(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        if "conv" in self.op or "norm" in self.op or self.op in ("linear", "irb", "pooled_head"):
            got["output"] = np.maximum(got["output"], 0)
        return got


def scaled_eps(factor: float) -> type[Correct]:
    class Scaled(Correct):
        def inv_std(self, variance: Array) -> Array:
            return 1 / np.sqrt(variance + factor * self.attrs["eps"])

    return Scaled


mutant("eps 10 times too large")(scaled_eps(10))
mutant("eps 100 times too large")(scaled_eps(100))


@mutant("no bias added")
class NoBias(Correct):
    def added_bias(self, bias: Array) -> Array:
        return 0 * bias


@mutant("1x1 weights read as (in, out)")
class InOut(Correct):
    def forward_weight(self, w: Array) -> Array:
        o, i, k, _ = w.shape
        return w.reshape(i, o).T.reshape(w.shape) if k == 1 and i > 1 else w


@mutant("1x1 weights read as (in, out) in the gradient of x")
class InOutBackward(Correct):
    def backward_weight(self, w: Array) -> Array:
        o, i, k, _ = w.shape
        return w.reshape(i, o).T.reshape(w.shape) if k == 1 and i > 1 else w


@mutant("1x1 weight gradients written as (in, out)")
class InOutGradient(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        o, i, k, _ = taps.shape
        return taps.reshape(o, i).T.reshape(taps.shape) if k == 1 and i > 1 else taps


@mutant("filters read (width, height)")
class WidthFirst(Correct):
    def forward_weight(self, w: Array) -> Array:
        return w.swapaxes(2, 3)


@mutant("sigmoid for hard-sigmoid")
class SigmoidGate(Correct):
    def hard_sigmoid(self, x: Array) -> Array:
        return 1 / (1 + np.exp(-x))


@mutant("sigmoid for hard-sigmoid, with its own slope")
class SigmoidGateThroughout(SigmoidGate):
    def hard_sigmoid_slope(self, x: Array) -> Array:
        y = self.hard_sigmoid(x)
        return y * (1 - y)


@mutant("hard-swish slope without the product rule")
class NoProductRule(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return np.clip(x + 3, 0, 6) / 6


@mutant("hard-swish slope (2 x + 3) / 6 everywhere")
class NoRegions(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return (2 * x + 3) / 6


@mutant("norm scales without their sign")
class AbsoluteScale(Correct):
    def scale_of(self, gamma: Array) -> Array:
        return np.abs(gamma)


@mutant("norm scales without their sign, in backward only")
class AbsoluteScaleBackward(Correct):
    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        gamma = self.p[f"{layer}weight"]
        gx = super().batch_norm_back(layer, gy, x_hat, inv_std)
        return gx * np.sign(gamma)


@mutant("loss and its gradient summed over the batch")
class SummedLossToo(Correct):
    def cross_entropy(self, z: Array, labels: Array) -> Result:
        loss, back = super().cross_entropy(z, labels)
        return loss * z.dtype.type(len(z)), lambda gy: back(gy) * z.dtype.type(len(z))


def factor(by: float, begin: str) -> type[Correct]:
    class Scaled(Correct):
        def answer(self) -> dict[str, Array]:
            got = super().answer()
            return {n: a * a.dtype.type(by) if n.startswith(begin) else a for n, a in got.items()}

    return Scaled


mutant("gradients of x doubled")(factor(2, "grad_input"))
mutant("gradients of x halved")(factor(0.5, "grad_input"))
mutant("gradients of x of the wrong sign")(factor(-1, "grad_input"))
mutant("gradients of the weights doubled")(factor(2, "grad_param.weight"))
mutant("gradients of the weights of the wrong sign")(factor(-1, "grad_param.weight"))


@mutant("project's gradient of the wrong sign from there on")
class NegatedInside(Correct):
    def conv(self, layer: str, x: Array, stride: int = 1, **how: Any) -> Result:
        y, back = super().conv(layer, x, stride, **how)
        return y, (lambda gy: -back(gy)) if layer.endswith("project.") else back


@mutant("depthwise gradient of the wrong sign from there on")
class NegatedDepthwise(Correct):
    def conv(self, layer: str, x: Array, stride: int = 1, **how: Any) -> Result:
        y, back = super().conv(layer, x, stride, **how)
        return y, (lambda gy: -back(gy)) if layer.endswith("depthwise.") else back


@mutant("bias gradients without the outputs whose last tap lies in the padding")
class InnerBias(Correct):
    def conv(self, layer: str, x: Array, stride: int = 1, **how: Any) -> Result:
        y, back = super().conv(layer, x, stride, **how)
        w = self.p[f"{layer}weight"]

        def inner(gy: Array) -> Array:
            gx = back(gy)
            if f"{layer}bias" in self.grads and w.ndim == 4 and w.shape[2] > 1:
                last = w.shape[2] - 1 - w.shape[2] // 2
                rows = [i for i in range(gy.shape[1]) if stride * i + last < x.shape[1]]
                columns = [j for j in range(gy.shape[2]) if stride * j + last < x.shape[2]]
                self.grads[f"{layer}bias"] = gy[:, rows][:, :, columns].sum(axis=(0, 1, 2))
            return gx

        return y, inner


@mutant("transposed copies of 1x1 weights made with rows and columns exchanged")
class ExchangedCopy(Correct):
    def backward_weight(self, w: Array) -> Array:
        o, i, k, _ = w.shape
        if k > 1 or i == 1:
            return w
        copy = w.reshape(i, o).T.reshape(-1)
        return copy.reshape(i, o).T.reshape(w.shape)


# Operations that came later


@mutant("channels of the groups interleaved")
class Interleaved(Correct):
    def channels_of(self, group: int, c: int, groups: int) -> slice:
        return slice(group, None, groups)


def without_group(w: Array, groups: int, group: int) -> Array:
    """Filters, or their gradients, with zeros for those of one group."""
    rows = w.reshape(groups, -1).copy()
    rows[group] = 0
    return rows.reshape(w.shape) if groups > 1 else w


@mutant("the last group missing, forward")
class NoLastGroup(Correct):
    def forward_weight(self, w: Array) -> Array:
        return without_group(w, self.attrs.get("groups", 1), -1)


@mutant("the last group missing in the gradient of x")
class NoLastGroupInX(Correct):
    def backward_weight(self, w: Array) -> Array:
        return without_group(w, self.attrs.get("groups", 1), -1)


@mutant("the last group missing in the gradient of the weights")
class NoLastGroupInWeights(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        return without_group(taps, self.attrs.get("groups", 1), -1)


@mutant("the first group missing in both gradients")
class NoFirstGroup(Correct):
    def backward_weight(self, w: Array) -> Array:
        return without_group(w, self.attrs.get("groups", 1), 0)

    def weight_gradient(self, taps: Array) -> Array:
        return without_group(taps, self.attrs.get("groups", 1), 0)


@mutant("filters not standardised")
class NotStandardised(Correct):
    def standardised_conv(self, x: Array, stride: int) -> Result:
        return self.conv("", x, stride, groups=self.attrs["groups"])


@mutant("biased deviation of the filters")
class BiasedFilters(Correct):
    def deviation(self, v: Array) -> Array:
        return np.sqrt((v * v).mean(axis=1, keepdims=True))

    def standardised_back(self, g: Array, v: Array, d: Array, deviation: Array) -> Array:
        gv = g / d - v * (g * v).sum(axis=1, keepdims=True) / (d * d * deviation * v.shape[1])
        return gv - gv.mean(axis=1, keepdims=True)


@mutant("standardisation forgotten in backward")
class StandardisedConstants(Correct):
    def standardised_back(self, g: Array, v: Array, d: Array, deviation: Array) -> Array:
        return g / d


@mutant("gradient filtering not divided by the stride squared")
class UndividedFilter(Correct):
    def filter_scale(self, stride: int) -> int:
        return 1


@mutant("patches from the first row on")
class UncentredPatches(Correct):
    def patches(self, size: int) -> Array:
        of = np.arange(size) // self.attrs["patch"]
        return (of[None] == np.arange(of[-1] + 1)[:, None]).astype(self.x.dtype)


@mutant("exact gradient for a filtered one")
class Unfiltered(Correct):
    def filtered_conv(self, x: Array, stride: int) -> Result:
        return self.conv("", x, stride)


@mutant("group norm over all channels")
class OneGroup(Correct):
    def group_norm(self, x: Array) -> Result:
        self.attrs = {**self.attrs, "groups": 1}
        return super().group_norm(x)


@mutant("group norm by the unbiased variance")
class UnbiasedGroups(Correct):
    def group_variance(self, rows: Array, mean: Array) -> Array:
        return np.square(rows - mean).sum(axis=2, keepdims=True) / (rows.shape[2] - 1)


@mutant("silu's slope without the product rule")
class SigmoidSlope(Correct):
    def silu_slope(self, x: Array) -> Array:
        return self.sigmoid(x)


@mutant("hard-swish for silu")
class HardSilu(Correct):
    def silu(self, x: Array) -> Array:
        return self.hard_swish(x)

    def silu_slope(self, x: Array) -> Array:
        return self.hard_swish_slope(x)


@mutant("hard-sigmoid for sigmoid")
class HardGate(Correct):
    def sigmoid(self, x: Array) -> Array:
        return self.hard_sigmoid(x)

    def sigmoid_slope(self, x: Array) -> Array:
        return self.hard_sigmoid_slope(x)


@mutant("average pool's gradient not divided")
class UndividedWindows(Correct):
    def area(self, s: int) -> int:
        return 1


@mutant("interpolation with aligned corners")
class AlignedCorners(Correct):
    def places(self, source: int, target: int) -> Array:
        return np.arange(target) * ((source - 1) / (target - 1))


@mutant("interpolation without half pixels")
class NoHalfPixels(Correct):
    def places(self, source: int, target: int) -> Array:
        return np.arange(target) * source / target


@mutant("update in the wrong direction")
class Ascent(Correct):
    def updated(self, name: str, gradient: Array) -> Array:
        return super().updated(name, -gradient)


@mutant("update ten times too large")
class LargeStep(Correct):
    def updated(self, name: str, gradient: Array) -> Array:
        return super().updated(name, 10 * gradient)


@mutant("no update")
class NoStep(Correct):
    def updated(self, name: str, gradient: Array) -> Array:
        return self.p[name]


@mutant("logits twice as large in the loss")
class Tempered(Correct):
    def cross_entropy(self, z: Array, labels: Array) -> Result:
        loss, back = super().cross_entropy(2 * z, labels)
        return loss, lambda gy: 2 * back(gy)


# Norms, as autograd makes their gradients of a wrong forward, and the loss


class WrongDeviation(Correct):
    """The derivative of a wrong forward: the x_hat term of gx is `steeper` than the formula has it."""

    def steeper(self, inv_std: Array, m: int) -> Array | float:
        raise NotImplementedError

    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        m = gy[..., 0].size
        gx = super().batch_norm_back(layer, gy, x_hat, inv_std)
        along = (gy * x_hat).mean(axis=(0, 1, 2)) * (self.steeper(inv_std, m) - 1)
        return gx - self.p[f"{layer}weight"] * inv_std * x_hat * along


@mutant("normalised by the unbiased variance, and its own derivative")
class UnbiasedThroughout(WrongDeviation):
    def variance(self, x: Array, mean: Array) -> Array:
        return super().variance(x, mean) * (x[..., 0].size / (x[..., 0].size - 1))

    def steeper(self, inv_std: Array, m: int) -> Array | float:
        return m / (m - 1)


@mutant("eps outside the square root, and its own derivative")
class EpsOutsideThroughout(WrongDeviation):
    def inv_std(self, variance: Array) -> Array:
        return 1 / (np.sqrt(variance) + self.attrs["eps"])

    def steeper(self, inv_std: Array, m: int) -> Array | float:
        return 1 / (1 - self.attrs["eps"] * inv_std)


@mutant("the mean of gy forgotten in a batch norm's gradient of x")
class NoMeanOfGradient(Correct):
    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        gx = super().batch_norm_back(layer, gy, x_hat, inv_std)
        return gx + self.p[f"{layer}weight"] * inv_std * gy.mean(axis=(0, 1, 2))


@mutant("the variance in place of the deviation in a norm")
class NoSquareRoot(Correct):
    def inv_std(self, variance: Array) -> Array:
        return 1 / (variance + self.attrs["eps"])


@mutant("the running mean not subtracted")
class NotCentred(Correct):
    def frozen_norm(self, layer: str, x: Array) -> Result:
        return super().frozen_norm(layer, x + self.p[f"{layer}running_mean"])


@mutant("momentum of the wrong sign")
class Repelled(Correct):
    def moved(self, running: Array, batch: Array) -> Array:
        return running - self.attrs["momentum"] * (batch - running)


@mutant("the old running statistic kept whole")
class NotDecayed(Correct):
    def moved(self, running: Array, batch: Array) -> Array:
        return running + self.attrs["momentum"] * batch


@mutant("running mean and variance exchanged")
class ExchangedStatistics(Correct):
    def move_statistics(self, layer: str, x: Array) -> None:
        super().move_statistics(layer, x)
        mean, variance = f"{layer}running_mean", f"{layer}running_var"
        self.after[mean], self.after[variance] = self.after[variance], self.after[mean]


@mutant("running deviation in place of the variance")
class RunningDeviation(Correct):
    def unbiased(self, variance: Array, m: int) -> Array:
        return np.asarray(np.sqrt(super().unbiased(variance, m)))


@mutant("softmax before the loss")
class SoftmaxTwice(Correct):
    def cross_entropy(self, z: Array, labels: Array) -> Result:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        loss, of_loss = super().cross_entropy(p, labels)

        def back(gy: Array) -> Array:
            g = of_loss(gy)
            return p * (g - (g * p).sum(axis=1, keepdims=True))

        return loss, back


@mutant("labels counted from 1")
class LabelsFromOne(Correct):
    def cross_entropy(self, z: Array, labels: Array) -> Result:
        return super().cross_entropy(z, (labels - 1) % z.shape[1])
