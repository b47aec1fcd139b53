"""minitl's layers as PyTorch's modules, with the same numbers in them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from minitl import ops
from minitl.bench.rivals import FOLDED_MASK, NORM
from minitl.bench.rivals.functions import SignOfMask, SignOfOutput
from minitl.blocks import ConvNorm, InvertedResidual, SqueezeExcite
from minitl.layers import FROZEN, Activation, Conv, Layer, Linear, Norm
from minitl.parameters import Parameter

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hard_swish": nn.Hardswish, "hard_sigmoid": nn.Hardsigmoid}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


class Builder:
    """Makes modules of layers in one form and layout, and remembers in `by_name` which parameter became which."""

    def __init__(self, form: str, layout: str) -> None:
        self.form, self.memory_format = form, LAYOUTS[layout]
        self.by_name: dict[str, Any] = {}

    def tensor(self, parameter: Parameter) -> Tensor:
        """A copy of its numbers, convolutions' weights in the layout."""
        value = torch.from_numpy(parameter.array().copy())
        return value.contiguous(memory_format=self.memory_format) if value.ndim == 4 else value

    def load(self, module: Any, layer: Layer) -> Any:
        """The module with the layer's parameters and statistics."""
        for name, parameter in layer.parameters.items():
            value = self.tensor(parameter)
            if not parameter.statistic:
                value = self.by_name[parameter.name] = nn.Parameter(value, requires_grad=parameter.trained)
            setattr(module, name, value)
        return module

    def conv(self, layer: Conv) -> Any:
        """A convolution."""
        outputs, inputs, kernel, _ = layer.parameters["weight"].value.shape
        groups = outputs if layer.op is ops.depthwise_conv else 1
        stride, bias = layer.attrs.get("stride", 1), "bias" in layer.parameters
        made = nn.Conv2d(inputs * groups, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        return self.load(made, layer)

    def norm(self, layer: Norm) -> Any:
        """A batch norm, in training only where it has batch statistics."""
        made = nn.BatchNorm2d(layer.parameters["weight"].value.size, layer.eps, layer.momentum)
        return self.load(made, layer).train(layer.plan.statistics == "batch")

    def linear(self, layer: Linear) -> Any:
        """A linear layer."""
        outputs, inputs = layer.parameters["weight"].value.shape
        return self.load(nn.Linear(inputs, outputs), layer)

    def activation(self, layer: Activation) -> Any:
        """An activation with the backward rule of its plan, in place."""
        if layer.plan.rule == "sign":
            return Sign(SignOfMask if self.form == FOLDED_MASK else SignOfOutput, layer.op.name)
        return ACTIVATIONS[layer.op.name](inplace=True)

    def conv_norm(self, part: ConvNorm) -> Any:
        """Convolution, norm, activation; what is frozen altogether becomes one convolution, once and for all."""
        conv, norm = self.conv(part.conv), self.norm(part.norm)
        act = [self.activation(part.act)] if part.act else []
        if part.conv.plan == FROZEN and part.norm.plan == FROZEN:
            return nn.Sequential(fuse_conv_bn_eval(conv.eval(), norm.eval()).requires_grad_(False), *act)
        if part.norm.plan.statistics == "batch" or self.form == NORM:
            return nn.Sequential(conv, norm, *act)
        return nn.Sequential(Folded(conv, norm), *act)

    def block(self, block: InvertedResidual) -> Any:
        """An inverted residual block."""
        parts = [self.conv_norm(part) for part in (block.expand, block.depthwise) if part]
        squeeze = [Squeeze(self, block.se)] if block.se else []
        return Block([*parts, *squeeze, self.conv_norm(block.project)], residual=block.add is not None)


class Sign(nn.Module):
    """An activation under the sign rule."""

    def __init__(self, function: Any, name: str) -> None:
        super().__init__()
        self.function, self.name = function, name

    def forward(self, x: Tensor) -> Tensor:
        """Activate x, in place."""
        return self.function.apply(x, self.name)


class Folded(nn.Module):
    """A trained convolution and a norm of which only the shift is trained, as one convolution."""

    def __init__(self, conv: Any, norm: Any) -> None:
        super().__init__()
        self.conv, self.shift = conv, norm.bias
        self.scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        self.offset = norm.running_mean * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x with the scaled weight."""
        conv, scale = self.conv, self.scale[:, None, None, None]
        shift = self.shift - self.offset
        return functional.conv2d(x, conv.weight * scale, shift, conv.stride, conv.padding, 1, conv.groups)


class Squeeze(nn.Module):
    """Squeeze-and-excite."""

    def __init__(self, builder: Builder, se: SqueezeExcite) -> None:
        super().__init__()
        layers = builder.conv(se.fc1), nn.ReLU(inplace=True), builder.conv(se.fc2), nn.Hardsigmoid()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x by its gate."""
        return x * self.gate(x)


class Block(nn.Module):
    """Parts one after the other, and perhaps a residual around them."""

    def __init__(self, parts: list[Any], *, residual: bool) -> None:
        super().__init__()
        self.parts, self.residual = nn.Sequential(*parts), residual

    def forward(self, x: Tensor) -> Tensor:
        """Run x through."""
        y = self.parts(x)
        return y.add_(x) if self.residual else y
