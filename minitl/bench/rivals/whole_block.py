"""A block under MobileTL as one autograd function, forward and backward written by hand of PyTorch's own kernels.

What autograd cannot know is used: maps that nobody else sees are overwritten, the gate's gradient and the
masks are applied in place, and an activation's sign is read from the map that the next convolution keeps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from minitl.bench.rivals.functions import IN_PLACE
from minitl.bench.rivals.modules import Builder, Folded
from minitl.blocks import InvertedResidual

aten = torch.ops.aten
ALL = (True, True, True)


class WholeBlock(nn.Module):
    """The block's parameters, and the function that uses them."""

    def __init__(self, block: InvertedResidual, builder: Builder) -> None:
        super().__init__()
        assert self.fits(block)
        parts: Any = (block.expand, block.depthwise)
        self.expand, self.depthwise = (Folded(builder.conv(part.conv), builder.norm(part.norm)) for part in parts)
        self.project, self.norm = builder.conv(block.project.conv), builder.norm(block.project.norm)
        self.squeeze = [builder.conv(fc) for fc in (block.se.fc1, block.se.fc2)] if block.se else []
        self.act, self.residual = IN_PLACE[parts[1].act.op.name], block.add is not None

    @staticmethod
    def fits(block: InvertedResidual) -> bool:
        """Whether both inner activations are there and follow the sign rule."""
        parts = (block.expand, block.depthwise)
        return all(part and part.act and part.act.plan.rule == "sign" for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        """Run x through."""
        convs = [self.expand.conv.weight, self.expand.shift, self.depthwise.conv.weight, self.depthwise.shift]
        top = [self.project.weight, self.norm.weight, self.norm.bias]
        squeeze = [p for fc in self.squeeze for p in (fc.weight, fc.bias)]
        return BlockFunction.apply(self, x, *convs, *top, *squeeze)


class BlockFunction(Function):
    """The arithmetic of a `WholeBlock`."""

    @staticmethod
    def forward(ctx: Any, block: Any, x: Tensor, *params: Tensor) -> Tensor:
        """Expand, depthwise, squeeze-and-excite, project, normalise, add."""
        w1, shift1, w2, shift2, w3, gamma, beta, *squeeze = params
        e, d, norm = block.expand, block.depthwise, block.norm
        w1, w2 = w1 * _along(e.scale), w2 * _along(d.scale)
        h = block.act(functional.conv2d(x, w1, shift1 - e.offset))
        u = functional.conv2d(h, w2, shift2 - d.offset, d.conv.stride, d.conv.padding, 1, d.conv.groups)
        u = block.act(u)
        v, gate = _squeeze(u, *squeeze) if squeeze else (u, [])
        z = functional.conv2d(v, w3)
        y, mean, inv_std = aten.native_batch_norm(
            z, gamma, beta, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
        ctx.block = block
        ctx.save_for_backward(x, w1, h, w2, u, v, w3, z, gamma, mean, inv_std, *gate, *squeeze)
        return y.add_(x) if block.residual else y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        """The way back, one kernel after the other."""
        block = ctx.block
        e, d, norm = block.expand, block.depthwise, block.norm
        x, w1, h, w2, u, v, w3, z, gamma, mean, inv_std, *more = ctx.saved_tensors
        running = norm.running_mean, norm.running_var
        g, ggamma, gbeta = aten.native_batch_norm_backward(gy, z, gamma, *running, mean, inv_std, True, norm.eps, ALL)
        g, gw3, _ = _conv_backward(g, v, w3, bias=False)
        gsqueeze: list[Tensor] = []
        if more:
            g, gsqueeze = _squeeze_backward(g, u, *more)
        g = _through_sign(g, u)
        g, gw2, gshift2 = _conv_backward(g, h, w2, stride=d.conv.stride, padding=d.conv.padding, groups=d.conv.groups)
        g = _through_sign(g, h)
        g, gw1, gshift1 = _conv_backward(g, x, w1)
        if block.residual:
            g += gy
        inner = gw1.mul_(_along(e.scale)), gshift1, gw2.mul_(_along(d.scale)), gshift2
        return (None, g, *inner, gw3, ggamma, gbeta, *gsqueeze)


def _squeeze(u: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The gated map, and what its backward needs besides the weights."""
    pooled = u.mean((2, 3), keepdim=True)
    a = torch.relu_(functional.conv2d(pooled, w1, b1))
    before = functional.conv2d(a, w2, b2)
    gate = functional.hardsigmoid(before)
    return u * gate, [pooled, a, before, gate]


def _squeeze_backward(
    g: Tensor, u: Tensor, pooled: Tensor, a: Tensor, before: Tensor, gate: Tensor, *weights: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of u, overwriting g, and of the weights."""
    w1, _, w2, _ = weights
    ggate = (g * u).sum((2, 3), keepdim=True)
    ga, gw2, gb2 = _conv_backward(aten.hardsigmoid_backward(ggate, before), a, w2)
    gpooled, gw1, gb1 = _conv_backward(aten.threshold_backward(ga, a, 0), pooled, w1)
    positions = u.shape[2] * u.shape[3]
    return torch.addcmul(gpooled / positions, g, gate), [gw1, gb1, gw2, gb2]


def _conv_backward(
    g: Tensor, x: Tensor, w: Tensor, *, bias: bool = True, stride: Any = (1, 1), padding: Any = (0, 0), groups: int = 1
) -> Any:
    sizes = [len(w)] if bias else None
    asked = (True, True, bias)
    return aten.convolution_backward(g, x, w, sizes, stride, padding, (1, 1), False, (0, 0), groups, asked)


def _through_sign(g: Tensor, y: Tensor) -> Tensor:
    return aten.threshold_backward(g, y, 0, grad_input=g)


def _along(scale: Tensor) -> Tensor:
    return scale[:, None, None, None]
