"""MobileTL in PyTorch, written from the oracle's specification alone: it shares no code with minitl.

Every op is an autograd function of its own, which saves what the specification says is kept and
computes its gradient from that. Maps are (N, C, H, W) tensors inside, in whatever memory layout
they came in. `answer(case)` gives everything the oracle asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Keep = Callable[[str, Tensor], None]
INNER_NORMS = ("expand_norm.", "depthwise_norm.")


# Packed codes: 8 / bits positions of one channel a byte, in (n, h, w) order, low bits first


def pack(codes: Tensor, bits: int) -> Tensor:
    flat = codes.movedim(1, -1).reshape(-1, codes.shape[1]).to(torch.uint8)
    per_byte = 8 // bits
    flat = F.pad(flat, (0, 0, 0, -len(flat) % per_byte))
    return (flat.view(-1, per_byte, flat.shape[1]) << _shifts(bits)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int, like: Tensor) -> Tensor:
    codes = (packed[:, None] >> _shifts(bits)) & (2**bits - 1)
    channels_last = like.movedim(1, -1)
    flat = codes.reshape(-1, packed.shape[1])[: channels_last[..., 0].numel()]
    return flat.reshape(channels_last.shape).movedim(-1, 1)


def _shifts(bits: int) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8)[None, :, None]


# Activations: the forward of each kind, and for each backward rule what is kept and the slope made of it


def hard_swish(x: Tensor) -> Tensor:
    return x * (x + 3).clamp(0, 6) / 6


FORWARD = {
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "hard_swish": hard_swish,
    "hard_sigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
    "sigmoid": torch.sigmoid,
    "silu": lambda x: x * torch.sigmoid(x),
}


@dataclass(frozen=True)
class Rule:
    """`keeps(x, y)` names tensors; `slope(gy, kept)` is what gy is multiplied by."""

    keeps: Callable[[Tensor, Tensor], dict[str, Tensor]]
    slope: Callable[[Tensor, dict[str, Tensor]], Tensor]


def one_bit(where: Callable[[Tensor], Tensor], slope: float = 1.0) -> Rule:
    return Rule(
        lambda x, y: {"mask": pack(where(x), 1)},
        lambda gy, kept: unpack(kept["mask"], 1, gy).to(gy.dtype) * slope,
    )


def from_output(where: Callable[[Tensor], Tensor]) -> Rule:
    return Rule(lambda x, y: {"y": y}, lambda gy, kept: where(kept["y"]).to(gy.dtype))


def relu6_slope_of_codes(gy: Tensor, kept: dict[str, Tensor]) -> Tensor:
    return (unpack(kept["codes"], 2, gy) == 1).to(gy.dtype)


def hard_swish_slope(gy: Tensor, kept: dict[str, Tensor]) -> Tensor:
    x = kept["x"]
    return torch.where(x <= -3, 0.0, torch.where(x >= 3, 1.0, (2 * x + 3) / 6)).to(gy.dtype)


def hard_swish_slope_from_output(gy: Tensor, kept: dict[str, Tensor]) -> Tensor:
    y, right = kept["y"], unpack(kept["mask"], 1, gy).bool()
    root = (9 + 24 * y).clamp(min=0).sqrt() / 6
    inside = torch.where(right, root, -root)
    slope = torch.where((y == 0) & ~right, 0.0, torch.where(right & (y >= 3), 1.0, inside))
    return slope.to(gy.dtype)


def silu_slope(gy: Tensor, kept: dict[str, Tensor]) -> Tensor:
    s = torch.sigmoid(kept["x"])
    return s * (1 + kept["x"] * (1 - s))


def few_bits(bits: int) -> Rule:
    """The slope's stand-in on the interval of x: a border belongs to the interval above it."""
    borders, levels = few_levels(bits)
    return Rule(
        lambda x, y: {"codes": pack(torch.bucketize(x.contiguous().double(), borders, right=True), bits)},
        lambda gy, kept: levels[unpack(kept["codes"], bits, gy).long()].to(gy.dtype),
    )


def few_levels(bits: int) -> tuple[Tensor, Tensor]:
    """Borders and levels of the step function nearest to Hard-Swish's slope on [-10, 10], solved by hand."""
    if bits == 1:
        borders, levels = [0.0], [0.0, 1.0]
    elif bits == 2:
        b = 1.0773837106674353  # where 3/2 (1 - sum of the outer two levels) = b
        outer, inner = -b * (3 - b) / (6 * (10 - b)), (3 - b) / 6
        borders, levels = [-b, 0.0, b], [outer, inner, 1 - inner, 1 - outer]
    else:
        borders = [3 * i / 7 - 3 for i in range(15)]
        levels = [0.0, *((i - 3) / 7 for i in range(14)), 1.0]
    return torch.tensor(borders, dtype=torch.float64), torch.tensor(levels, dtype=torch.float64)


RULES = {
    ("relu", "exact"): one_bit(lambda x: x > 0),
    ("relu", "output"): from_output(lambda y: y > 0),
    ("relu6", "codes"): Rule(
        lambda x, y: {"codes": pack((x > 0).to(torch.uint8) + (x >= 6).to(torch.uint8), 2)}, relu6_slope_of_codes
    ),
    ("relu6", "band"): one_bit(lambda x: (x > 0) & (x < 6)),
    ("relu6", "output"): from_output(lambda y: (y > 0) & (y < 6)),
    ("relu6", "sign"): one_bit(lambda x: x >= 0),
    ("hard_swish", "exact"): Rule(lambda x, y: {"x": x}, hard_swish_slope),
    ("hard_swish", "output"): Rule(lambda x, y: {"mask": pack(x >= -1.5, 1), "y": y}, hard_swish_slope_from_output),
    ("hard_swish", "sign"): one_bit(lambda x: x >= 0),
    ("hard_swish", "output-sign"): from_output(lambda y: ~torch.signbit(y)),
    ("hard_swish", "few1"): few_bits(1),
    ("hard_swish", "few2"): few_bits(2),
    ("hard_swish", "few4"): few_bits(4),
    ("hard_sigmoid", "exact"): one_bit(lambda x: (x > -3) & (x < 3), 1 / 6),
    ("sigmoid", "exact"): Rule(lambda x, y: {"y": y}, lambda gy, kept: kept["y"] * (1 - kept["y"])),
    ("silu", "exact"): Rule(lambda x, y: {"x": x}, silu_slope),
    ("silu", "sign"): one_bit(lambda x: x >= 0),
}
BASELINE = {"relu": "exact", "relu6": "codes", "hard_swish": "exact", "hard_sigmoid": "exact"}


class Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str, rule: str, keep: Keep) -> Tensor:
        y = FORWARD[kind](x)
        kept = RULES[kind, rule].keeps(x, y)
        ctx.rule, ctx.names = RULES[kind, rule], tuple(kept)
        ctx.save_for_backward(*kept.values())
        for name, tensor in kept.items():
            keep(name, tensor)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        kept = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        return gy * ctx.rule.slope(gy, kept), None, None, None


# Norms


def per_channel(vector: Tensor) -> Tensor:
    return vector[:, None, None]


class ShiftNorm(torch.autograd.Function):
    """Frozen scale and statistics: nothing of x is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return (x - per_channel(mean)) * per_channel(scale) + per_channel(bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (scale,) = ctx.saved_tensors
        return gy * per_channel(scale), None, gy.sum((0, 2, 3)), None


class BatchNorm(torch.autograd.Function):
    """Statistics of the batch; keeps the normalised input and one factor a channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor, keep: Keep) -> Tensor:
        x_hat = (x - per_channel(mean)) * per_channel(inv_std)
        ctx.save_for_backward(x_hat, inv_std, weight)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            keep("x_hat", x_hat)
        if ctx.needs_input_grad[0]:
            keep("inv_std", inv_std)
        return x_hat * per_channel(weight) + per_channel(bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x_hat, inv_std, weight = ctx.saved_tensors
        m = gy.numel() // gy.shape[1]
        g_bias, g_weight = gy.sum((0, 2, 3)), (gy * x_hat).sum((0, 2, 3))
        gx = per_channel(weight * inv_std) * (gy - per_channel(g_bias / m) - x_hat * per_channel(g_weight / m))
        return gx, g_weight, g_bias, None, None, None


class GroupNorm(torch.autograd.Function):
    """Statistics of each sample's groups of channels, as vectors (N, groups, values)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, keep: Keep) -> Tensor:
        rows = x.contiguous().view(len(x), groups, -1)
        inv_std = (rows.var(2, correction=0) + eps).rsqrt()
        x_hat = ((rows - rows.mean(2, keepdim=True)) * inv_std[..., None]).view(x.shape)
        ctx.save_for_backward(x_hat, inv_std, weight)
        keep("x_hat", x_hat)
        keep("inv_std", inv_std)
        return x_hat * per_channel(weight) + per_channel(bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x_hat, inv_std, weight = ctx.saved_tensors
        a, rows = ((t.contiguous().view(*inv_std.shape, -1)) for t in (gy * per_channel(weight), x_hat))
        means = a.mean(2, keepdim=True), (a * rows).mean(2, keepdim=True)
        gx = (inv_std[..., None] * (a - means[0] - rows * means[1])).view(gy.shape)
        return gx, (gy * x_hat).sum((0, 2, 3)), gy.sum((0, 2, 3)), None, None, None


# Convolutions


class Conv(torch.autograd.Function):
    """Keeps its input only if its weight is trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int, keep: Keep) -> Any:
        ctx.geometry = {"stride": stride, "padding": weight.shape[2] // 2, "groups": groups}
        ctx.shapes = x.shape, weight.shape
        ctx.save_for_backward(weight, x if ctx.needs_input_grad[1] else None)
        if ctx.needs_input_grad[1]:
            keep("x", x)
        return F.conv2d(x, weight, bias, **ctx.geometry)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        weight, x = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        gx = gw = gb = None
        if wanted[0]:
            gx = torch.nn.grad.conv2d_input(ctx.shapes[0], weight, gy, **ctx.geometry)
        if wanted[1]:
            gw = torch.nn.grad.conv2d_weight(x, ctx.shapes[1], gy, **ctx.geometry)
        if wanted[2]:
            gb = gy.sum((0, 2, 3))
        return gx, gw, gb, None, None, None


class GatedConv(torch.autograd.Function):
    """A pointwise convolution of gate x, with the gate folded into the weights, sample by sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, weight: Tensor, keep: Keep) -> Tensor:
        ctx.save_for_backward(x, gate, weight)
        keep("x", x)
        keep("gate", gate)
        folded = weight[None, :, :, 0, 0] * gate[:, None, :, 0, 0]
        return torch.einsum("nihw,noi->nohw", x, folded)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, gate, weight = ctx.saved_tensors
        matrix, gates = weight[:, :, 0, 0], gate[:, :, 0, 0]
        products = torch.einsum("nohw,nihw->noi", gy, x)
        gx = torch.einsum("nohw,noi->nihw", gy, matrix * gates[:, None])
        g_gate = (matrix * products).sum(1)[:, :, None, None]
        g_weight = (products * gates[:, None]).sum(0)[:, :, None, None]
        return gx, g_gate, g_weight, None


class FilteredConv(torch.autograd.Function):
    """Gradients from means of gy over patches, and from sums of x over the same patches, which alone are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, r: int, keep: Keep) -> Tensor:
        y = F.conv2d(x, weight, None, stride, weight.shape[2] // 2)
        to_rows, to_columns = (patches(out, r).to(x.dtype) for out in y.shape[2:])
        above, beside = (wide(p, n, stride) for p, n in zip((to_rows, to_columns), x.shape[2:], strict=True))
        sums = torch.einsum("nchw,ph,qw->ncpq", x, above, beside)
        keep("x_sums", sums)
        ctx.save_for_backward(sums, weight, to_rows, to_columns, above, beside)
        ctx.stride = stride
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        sums, weight, to_rows, to_columns, above, beside = ctx.saved_tensors
        means = torch.einsum("nohw,ph,qw->nopq", gy, to_rows / to_rows.sum(1)[:, None], to_columns)
        means = means / to_columns.sum(1) / ctx.stride**2
        gx = torch.einsum("nopq,oc,ph,qw->nchw", means, weight.sum((2, 3)), above, beside)
        gw = torch.einsum("nopq,ncpq->oc", means, sums)[:, :, None, None].expand(weight.shape)
        return gx, gw, None, None, None


def patches(size: int, r: int) -> Tensor:
    """One row per patch of a line: 1 where it lies. Patches are centred, and cut off at the ends."""
    count = -(-size // r)
    of = (torch.arange(size) + (count * r - size) // 2) // r
    return (of[None] == torch.arange(count)[:, None]).to(torch.float64)


def wide(patch: Tensor, size: int, stride: int) -> Tensor:
    """The same patches of the input: `stride` lines for each of the output's, as far as there are any."""
    return patch.repeat_interleave(stride, 1)[:, :size]


# A network of these: parameters by name, what is trained, what was kept


@dataclass
class Network:
    """`parameters` and `buffers` by name; `kept` and `after` fill up as it runs."""

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    attrs: dict[str, Any]
    method: str
    trained: frozenset[str]

    def __post_init__(self) -> None:
        self.kept: dict[str, Tensor] = {}
        self.after: dict[str, Tensor] = {}
        self.keeps = True
        for name in self.trained:
            self.parameters[name].requires_grad_()

    def keep(self, layer: str) -> Keep:
        def keep(name: str, tensor: Tensor) -> None:
            if self.keeps:
                self.kept[layer + name] = tensor.detach()

        return keep

    def conv(self, layer: str, x: Tensor, stride: int = 1, *, depthwise: bool = False) -> Tensor:
        weight, bias = self.parameters[layer + "weight"], self.parameters.get(layer + "bias")
        return self.convolve(layer, x, weight, bias, stride, x.shape[1] if depthwise else 1)

    def convolve(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
        return Conv.apply(x, weight, bias, stride, groups, self.keep(layer))

    def standardised(self) -> Tensor:
        """The filters less their mean, over their deviation."""
        rows = self.parameters["weight"].flatten(1)
        return ((rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-5)).view_as(
            self.parameters["weight"]
        )

    def group_norm(self, x: Tensor) -> Tensor:
        weight, bias = self.parameters["weight"], self.parameters["bias"]
        return GroupNorm.apply(x, weight, bias, self.attrs["groups"], self.attrs["eps"], self.keep(""))

    def act(self, layer: str, x: Tensor, kind: str, rule: str = "") -> Tensor:
        return Activation.apply(x, kind, rule or BASELINE[kind], self.keep(layer))

    def frozen_norm(self, layer: str, x: Tensor) -> Tensor:
        weight, bias = self.parameters[layer + "weight"], self.parameters[layer + "bias"]
        scale = weight / (self.buffers[layer + "running_var"] + self.attrs["eps"]).sqrt()
        return ShiftNorm.apply(x, scale, bias, self.buffers[layer + "running_mean"])

    def batch_norm(self, layer: str, x: Tensor) -> Tensor:
        weight, bias = self.parameters[layer + "weight"], self.parameters[layer + "bias"]
        values, m = x.detach(), x.numel() // x.shape[1]
        mean = values.mean((0, 2, 3))
        squares = (values - per_channel(mean)).square().sum((0, 2, 3))
        for name, batch in (("running_mean", mean), ("running_var", squares / (m - 1))):
            momentum = self.attrs["momentum"]
            self.after[layer + name] = (1 - momentum) * self.buffers[layer + name] + momentum * batch
        inv_std = (squares / m + self.attrs["eps"]).rsqrt()
        return BatchNorm.apply(x, weight, bias, mean, inv_std, self.keep(layer))

    def gate(self, prefix: str, x: Tensor) -> Tensor:
        squeezed = self.act(f"{prefix}act.", self.conv(f"{prefix}fc1.", x.mean((2, 3), keepdim=True)), "relu")
        return self.act(f"{prefix}gate.", self.conv(f"{prefix}fc2.", squeezed), "hard_sigmoid")

    def scale(self, layer: str, x: Tensor, gate: Tensor) -> Tensor:
        self.keep(layer)("x", x)
        self.keep(layer)("gate", gate)
        return x * gate

    def linear(self, layer: str, x: Tensor) -> Tensor:
        if f"{layer}weight" in self.trained:
            self.keep(layer)("x", x)
        return F.linear(x, self.parameters[f"{layer}weight"], self.parameters.get(f"{layer}bias"))

    def cross_entropy(self, layer: str, x: Tensor, labels: Tensor) -> Tensor:
        self.keep(layer)("probabilities", x.softmax(1))
        self.keep(layer)("labels", labels)
        return F.cross_entropy(x, labels)

    def irb(self, x: Tensor) -> Tensor:
        return self.block("", x, self.attrs, self.method)

    def block(self, at: str, x: Tensor, spec: dict[str, Any], method: str) -> Tensor:
        """An inverted residual block whose layers' names begin with `at`; in method "" nothing is trained."""
        kind, ft = spec["activation"], method in ("ft", "ft-all")
        exact = method in ("mobiletl-exact", "mobiletl-recompute")
        inner_norm = self.batch_norm if ft else self.frozen_norm
        rule = "output" if exact else "sign" if method == "mobiletl" and kind != "relu" else ""

        def widen(h: Tensor) -> Tensor:
            if spec.get("expand", True):
                h = self.act(
                    f"{at}expand_act.", inner_norm(f"{at}expand_norm.", self.conv(f"{at}expand.", h)), kind, rule
                )
            return self.conv(f"{at}depthwise.", h, spec["stride"], depthwise=True)

        if method == "mobiletl-recompute" and spec.get("expand", True):
            self.keep(f"{at}expand.")("x", x)
            self.keeps = False
            h = checkpoint(widen, x, use_reentrant=False)
            self.keeps = True
        else:
            h = widen(x)
        h = self.act(f"{at}depthwise_act.", inner_norm(f"{at}depthwise_norm.", h), kind, rule)
        if spec.get("se_channels", 0):
            gate = self.gate(f"{at}se.", h)
            if exact:
                h = GatedConv.apply(h, gate, self.parameters[f"{at}project.weight"], self.keep(f"{at}project."))
            else:
                h = self.conv(f"{at}project.", self.scale(f"{at}se.scale.", h, gate))
        else:
            h = self.conv(f"{at}project.", h)
        y = self.batch_norm(f"{at}project_norm.", h) if method else self.frozen_norm(f"{at}project_norm.", h)
        return y + x if y.shape == x.shape else y

    def residual(self, x: Tensor) -> Tensor:
        kind = self.attrs["activation"]
        h = self.act("act1.", self.batch_norm("norm1.", self.conv("conv1.", x)), kind)
        return self.act("act2.", self.batch_norm("norm2.", self.conv("conv2.", h)) + x, kind)

    def whole(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and logits of a network; what lies below the tuned blocks is run as it is, and keeps nothing."""
        a, kind, signs = self.attrs, self.attrs["activation"], self.method == "mobiletl"
        lists = zip(*([int(n) for n in a[k].split(",")] for k in LISTS), strict=True)
        all_of_it = self.method == "ft-all"
        first = 0 if all_of_it else a["channels"].count(",") + 1 - a["tuned"]
        self.keeps = all_of_it
        norm = self.batch_norm if all_of_it else self.frozen_norm
        x = self.act("stem_act.", norm("stem_norm.", self.conv("stem.", x, 2)), kind)
        for number, (k, stride, _, _, se) in enumerate(lists):
            self.keeps = number >= first
            spec = {"kernel": k, "stride": stride, "se_channels": se, "activation": kind}
            x = self.block(f"block{number + 1}.", x, spec, self.method if number >= first else "")
        rule = "sign" if signs and kind != "relu" else ""
        if self.method in ("mobiletl-exact", "mobiletl-recompute") and kind == "relu6":
            rule = "band"
        h = self.act("head_act.", self.batch_norm("head_norm.", self.conv("head.", x)), kind, rule)
        logits = self.linear("classifier.", h.mean((2, 3)))
        return self.cross_entropy("loss.", logits, labels), logits


LISTS = ("kernels", "strides", "expanded", "channels", "se")


class Native(Network):
    """The same from PyTorch's own layers and autograd; frozen norms are folded to one factor and one shift.

    Not its hard-sigmoid in float64, whose slope of 1/6 is rounded to float32.
    """

    def convolve(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
        return F.conv2d(x, weight, bias, stride, weight.shape[2] // 2, groups=groups)

    def group_norm(self, x: Tensor) -> Tensor:
        return F.group_norm(
            x, self.attrs["groups"], self.parameters["weight"], self.parameters["bias"], self.attrs["eps"]
        )

    def act(self, layer: str, x: Tensor, kind: str, rule: str = "") -> Tensor:
        own = {"relu": F.relu, "relu6": F.relu6, "hard_swish": F.hardswish, "hard_sigmoid": F.hardsigmoid}
        own |= {"sigmoid": torch.sigmoid, "silu": F.silu}
        narrow = kind == "hard_sigmoid" and x.dtype == torch.float64
        if rule in ("", "exact", "codes", "band", "output") and not narrow:
            return own[kind](x)
        return Activation.apply(x, kind, rule or BASELINE[kind], lambda name, tensor: None)

    def frozen_norm(self, layer: str, x: Tensor) -> Tensor:
        weight, bias = self.parameters[layer + "weight"].detach(), self.parameters[layer + "bias"]
        scale = weight / torch.sqrt(self.buffers[layer + "running_var"] + self.attrs["eps"])
        return x * per_channel(scale) + per_channel(bias - self.buffers[layer + "running_mean"] * scale)

    def batch_norm(self, layer: str, x: Tensor) -> Tensor:
        after = {name: self.buffers[layer + name].clone() for name in ("running_mean", "running_var")}
        self.after |= {layer + name: value for name, value in after.items()}
        affine = self.parameters[layer + "weight"], self.parameters[layer + "bias"]
        mean, variance = after.values()
        return F.batch_norm(x, mean, variance, *affine, True, self.attrs["momentum"], self.attrs["eps"])

    def scale(self, layer: str, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate


def run(network: Network, op: str, x: Tensor, rule: str, more: dict[str, Tensor]) -> Tensor:
    """The output of a single op, or of a block, for x."""
    stride = network.attrs.get("stride", 1)
    match op:
        case "conv" | "pointwise_conv":
            return network.conv("", x, stride)
        case "depthwise_conv":
            return network.conv("", x, stride, depthwise=True)
        case "batch_norm":
            return network.batch_norm("", x)
        case "frozen_norm":
            return network.frozen_norm("", x)
        case "grouped_conv":
            return network.convolve("", x, network.parameters["weight"], None, stride, network.attrs["groups"])
        case "standardised_conv":
            return network.convolve("", x, network.standardised(), None, stride, network.attrs["groups"])
        case "filtered_conv":
            return FilteredConv.apply(x, network.parameters["weight"], stride, network.attrs["patch"], network.keep(""))
        case "group_norm":
            return network.group_norm(x)
        case "avg_pool":
            return F.avg_pool2d(x, network.attrs["window"])
        case "bilinear_up":
            size = network.attrs["out_height"], network.attrs["out_width"]
            return F.interpolate(x, size, mode="bilinear", align_corners=False)
        case "pooled_head":
            return network.linear("", x.mean((2, 3)))
        case "residual":
            return network.residual(x)
        case "relu" | "relu6" | "hard_swish" | "hard_sigmoid" | "sigmoid" | "silu":
            return network.act("", x, op, rule)
        case "squeeze_excite":
            return network.scale("scale.", x, network.gate("", x))
        case "global_avg_pool":
            return x.mean((2, 3))
        case "linear":
            return network.linear("", x)
        case "cross_entropy":
            return network.cross_entropy("", x, more["labels"])
        case "add":
            return x + more["y"]
        case "scale":
            return network.scale("", x, more["gate"])
        case "irb":
            return network.irb(x)
    raise ValueError(op)


def trained_by(method: str, parameters: dict[str, Tensor]) -> frozenset[str]:
    """What a method trains of a block: everything, or everything but the inner norms' scales."""
    frozen = () if method == "ft" else tuple(f"{norm}weight" for norm in INNER_NORMS)
    return frozenset(name for name in parameters if name not in frozen)


def answer(case: Any, kind: type[Network] = Network) -> dict[str, Tensor]:
    """Output, gradients, changed buffers and kept tensors of an oracle's case, as it names them."""
    nhwc = case.layout == "nhwc"

    def load(name: str) -> Tensor:
        tensor = torch.from_numpy(np.array(case.inputs[name]))
        is_map = not name.startswith(("param.", "buffer.")) and tensor.ndim == 4
        return tensor.movedim(-1, 1) if nhwc and is_map else tensor

    def family(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): load(name) for name in case.inputs if name.startswith(prefix)}

    required = set(case.required)
    parameters, flows = family("param."), family("input.")
    asked = frozenset(name for name in parameters if f"grad_param.{name}" in required)
    trained = trained_by(case.method, parameters) if case.op == "irb" else asked
    network = kind(parameters, family("buffer."), dict(case.attrs), case.method, trained)
    for name, flow in flows.items():
        flow.requires_grad_(f"grad_input.{name}" in required)
    x = flows.pop("x")
    got = {}
    if case.op == "network":
        y, got["output.logits"] = network.whole(x, flows.pop("labels"))
    else:
        y = run(network, case.op, x, case.rule, flows)
    network.keeps = False  # what runs again in backward is kept no longer
    if y.requires_grad:
        y.backward(load("grad_output"))

    def store(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.movedim(1, -1) if nhwc and tensor.ndim == 4 else tensor

    got = {name: store(tensor) for name, tensor in {"output": y, **got}.items()}
    operands = {"x": x, **flows}
    got |= {f"grad_input.{name}": store(flow.grad) for name, flow in operands.items() if flow.grad is not None}
    for name in trained:
        got[f"grad_param.{name}"] = parameters[name].grad
        if case.op == "network":
            got[f"param_after.{name}"] = parameters[name].detach() - case.attrs["lr"] * parameters[name].grad
    got |= {f"buffer_after.{name}": value for name, value in network.after.items()}
    if kind is Native:
        return got  # what autograd keeps is its own affair
    return got | {f"kept.{name}": store(tensor) for name, tensor in network.kept.items()}
