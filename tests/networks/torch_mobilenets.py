"""The MobileNets in PyTorch, written from the papers and torchvision's documentation, with torchvision's names.

They share no code with minitl: tables, rounding of widths, names, methods and backward rules are written
out again. Layout is NCHW.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RELU, RELU6, HS = "relu", "relu6", "hard_swish"


def hard_sigmoid(x: Tensor) -> Tensor:
    """PyTorch's own hardsigmoid and hardswish multiply by 1/6 in float32 even where x is float64."""
    return functional.relu6(x + 3) / 6


FORWARD = {RELU: functional.relu, RELU6: functional.relu6, HS: lambda x: x * hard_sigmoid(x)}


class SignRule(torch.autograd.Function):
    """Any activation, whose gradient is passed where its input is not negative."""

    @staticmethod
    def forward(context: Any, x: Tensor, kind: str) -> Tensor:
        context.save_for_backward(x)
        return FORWARD[kind](x)

    @staticmethod
    def backward(context: Any, gy: Tensor) -> tuple[Tensor, None]:
        (x,) = context.saved_tensors
        return torch.where(x >= 0, gy, torch.zeros_like(gy)), None


class Act(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.sign = kind, False

    def forward(self, x: Tensor) -> Tensor:
        return SignRule.apply(x, self.kind) if self.sign else FORWARD[self.kind](x)


class ConvNormAct(nn.Sequential):
    def __init__(
        self, i: int, o: int, kernel: int, stride: int, norm: dict[str, float], act: str = "", groups: int = 1
    ) -> None:
        conv = nn.Conv2d(i, o, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(o, **norm), *([Act(act)] if act else []))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x * hard_sigmoid(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


class Block(nn.Module):
    """An inverted residual block; its layers are numbered within `conv` (V2) or `block` (V3)."""

    def __init__(
        self, i: int, wide: int, o: int, kernel: int, stride: int, act: str, squeezed: int, expand: bool,
        norm: dict[str, float], v3: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        project = ConvNormAct(wide, o, 1, 1, norm)
        self.parts: dict[str, Any] = {"expand": ConvNormAct(i, wide, 1, 1, norm, act)} if expand else {}
        self.parts["depthwise"] = ConvNormAct(wide, wide, kernel, stride, norm, act, groups=wide)
        if squeezed:
            self.parts["se"] = SqueezeExcitation(wide, squeezed)
        layers = [*self.parts.values(), *([project] if v3 else project)]
        self.parts["project"] = project
        self.name = "block" if v3 else "conv"
        setattr(self, self.name, nn.Sequential(*layers))
        self.residual = stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        y = getattr(self, self.name)(x)
        return y + x if self.residual else y

    def inner(self) -> Iterator[ConvNormAct]:
        yield from (self.parts[name] for name in ("expand", "depthwise") if name in self.parts)

    def by_role(self) -> dict[str, nn.Module]:
        """Its layers that have parameters, as a lone block of minitl names them."""
        layers: dict[str, nn.Module] = {}
        for role, part in self.parts.items():
            names = {"se.fc1": "fc1", "se.fc2": "fc2"} if role == "se" else {role: "0", f"{role}_norm": "1"}
            layers |= {ours: part.get_submodule(theirs) for ours, theirs in names.items()}
        return layers


class Net(nn.Module):
    def __init__(
        self, stem: nn.Module, blocks: list[Block], head: nn.Module | None, classifier: list[nn.Module]
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(stem, *blocks, *([head] if head else []))
        self.classifier = nn.Sequential(*classifier)
        self.blocks, self.above = blocks, [*([head] if head else []), self.classifier]

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


def divisible(v: float) -> int:
    """Multiples of 8, never below 90 % of v."""
    new = max(8, int(v + 4) // 8 * 8)
    return new + 8 if new < 0.9 * v else new


# Tables

V2_SETTING = [  # t, c, n, s
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
]  # fmt: skip
PROXYLESS = [  # channels and first stride of a stage; expansion x kernel of its blocks
    (16, 1, "1x3"), (32, 2, "3x5 3x3"), (40, 2, "3x7 3x3 3x5 3x5"), (80, 2, "6x7 3x5 3x5 3x5"),
    (96, 1, "6x5 3x5 3x5 3x5"), (192, 2, "6x7 6x7 3x7 3x7"), (320, 1, "6x7"),
]  # fmt: skip
MCUNET = [
    (8, 1, "1x3"), (16, 2, "3x5 6x7 5x3 5x5"), (24, 2, "5x3 6x7 6x5"), (40, 2, "4x7 5x5"), (48, 1, "5x3 5x5 4x3"),
    (96, 2, "6x5 4x5 3x5 4x3"), (160, 1, "5x5"),
]  # fmt: skip
V3_SMALL = [  # input, kernel, expanded, output, SE, activation, stride (the paper's table 2)
    (16, 3, 16, 16, True, RELU, 2), (16, 3, 72, 24, False, RELU, 2), (24, 3, 88, 24, False, RELU, 1),
    (24, 5, 96, 40, True, HS, 2), (40, 5, 240, 40, True, HS, 1), (40, 5, 240, 40, True, HS, 1),
    (40, 5, 120, 48, True, HS, 1), (48, 5, 144, 48, True, HS, 1), (48, 5, 288, 96, True, HS, 2),
    (96, 5, 576, 96, True, HS, 1), (96, 5, 576, 96, True, HS, 1),
]  # fmt: skip
V3_LARGE = [  # table 1
    (16, 3, 16, 16, False, RELU, 1), (16, 3, 64, 24, False, RELU, 2), (24, 3, 72, 24, False, RELU, 1),
    (24, 5, 72, 40, True, RELU, 2), (40, 5, 120, 40, True, RELU, 1), (40, 5, 120, 40, True, RELU, 1),
    (40, 3, 240, 80, False, HS, 2), (80, 3, 200, 80, False, HS, 1), (80, 3, 184, 80, False, HS, 1),
    (80, 3, 184, 80, False, HS, 1), (80, 3, 480, 112, True, HS, 1), (112, 3, 672, 112, True, HS, 1),
    (112, 5, 672, 160, True, HS, 2), (160, 5, 960, 160, True, HS, 1), (160, 5, 960, 160, True, HS, 1),
]  # fmt: skip
DIGITS = [  # input, kernel, expanded, output, squeezed, stride
    (16, 3, 32, 16, 0, 1), (16, 3, 64, 24, 0, 2), (24, 3, 72, 24, 0, 1), (24, 5, 96, 40, 24, 2),
    (40, 5, 160, 40, 40, 1), (40, 5, 160, 48, 40, 1), (48, 5, 192, 48, 48, 1),
]  # fmt: skip
PLAIN, V3_NORM = {"eps": 1e-5, "momentum": 0.1}, {"eps": 0.001, "momentum": 0.01}


def mobilenet_v2(classes: int, width: float, dropout: float = 0.2) -> Net:
    rows = [(t, 3, c, s if i == 0 else 1) for t, c, n, s in V2_SETTING for i in range(n)]
    return _relu6_net(rows, classes, width, dropout)


def proxyless_mobile(classes: int, width: float, dropout: float = 0.0) -> Net:
    return _relu6_net(_searched(PROXYLESS), classes, width, dropout)


def mcunet_in2(classes: int, width: float, dropout: float = 0.0) -> Net:
    return _relu6_net(_searched(MCUNET), classes, width, dropout, first=16, head=False)


def _searched(stages: list[Any]) -> list[Any]:
    return [
        (*map(int, block.split("x")), c, s if i == 0 else 1)
        for c, s, stage in stages
        for i, block in enumerate(stage.split())
    ]


def _relu6_net(
    rows: list[Any], classes: int, width: float, dropout: float, *, first: int = 32, head: bool = True
) -> Net:
    i, last = divisible(first * width), divisible(1280 * max(1.0, width))
    stem, blocks = ConvNormAct(3, i, 3, 2, PLAIN, RELU6), []
    for t, kernel, c, s in rows:
        o = divisible(c * width)
        blocks.append(Block(i, round(i * t), o, kernel, s, RELU6, 0, t != 1, PLAIN, v3=False))
        i = o
    top = ConvNormAct(i, last, 1, 1, PLAIN, RELU6) if head else None
    return Net(stem, blocks, top, [nn.Dropout(dropout), nn.Linear(last if head else i, classes)])


def digits_irb(classes: int, width: float, dropout: float = 0.0) -> Net:
    stem = ConvNormAct(3, divisible(16 * width), 3, 1, PLAIN, HS)
    blocks = []
    for i, kernel, wide, o, squeezed, s in DIGITS:
        inputs, inner, outputs = (divisible(n * width) for n in (i, wide, o))
        squeeze = squeezed and divisible(squeezed * width)
        blocks.append(Block(inputs, inner, outputs, kernel, s, HS, squeeze, True, PLAIN, v3=False))
    last = divisible(192 * width)
    head = ConvNormAct(divisible(48 * width), last, 1, 1, PLAIN, HS)
    return Net(stem, blocks, head, [nn.Dropout(dropout), nn.Linear(last, classes)])


def mobilenet_v3_small(classes: int, width: float, dropout: float = 0.2) -> Net:
    return _v3(V3_SMALL, 1024, classes, width, dropout)


def mobilenet_v3_large(classes: int, width: float, dropout: float = 0.2) -> Net:
    return _v3(V3_LARGE, 1280, classes, width, dropout)


def _v3(rows: list[Any], last: int, classes: int, width: float, dropout: float) -> Net:
    stem, blocks = ConvNormAct(3, divisible(16 * width), 3, 2, V3_NORM, HS), []
    for i, kernel, wide, o, squeeze, act, s in rows:
        i, wide, o = (divisible(n * width) for n in (i, wide, o))
        squeezed = divisible(wide // 4) if squeeze else 0
        blocks.append(Block(i, wide, o, kernel, s, act, squeezed, wide != i, V3_NORM, v3=True))
    features, last = 6 * o, divisible(last * width)
    classifier = [nn.Linear(features, last), Act(HS), nn.Dropout(dropout), nn.Linear(last, classes)]
    return Net(stem, blocks, ConvNormAct(o, features, 1, 1, V3_NORM, HS), classifier)


NETS = {
    "mobilenet_v2": mobilenet_v2,
    "proxyless_mobile": proxyless_mobile,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "digits_irb": digits_irb,
    "mcunet_in2": mcunet_in2,
}


# Methods


def train_fully(module: nn.Module) -> None:
    module.train()
    module.requires_grad_(True)


def freeze(module: nn.Module) -> None:
    module.eval()
    module.requires_grad_(False)


def signed(module: nn.Module) -> None:
    """The sign rule for Hard-Swish and ReLU6; ReLU's slope already is one bit."""
    for act in module.modules():
        if isinstance(act, Act):
            act.sign = act.kind != RELU


def mobiletl_block(block: Block) -> None:
    train_fully(block)
    for part in block.inner():
        norm = part[1]
        freeze(norm)
        norm.bias.requires_grad_(True)
        signed(part)


def tune(net: Net, method: str, k: int | None) -> None:
    """Freeze and unfreeze as the method says; batch statistics are used where `training` is set on a norm."""
    freeze(net)
    above = net.above
    if method == "ft-all":
        train_fully(net)
    elif method == "ft-bias":
        for name, p in net.named_parameters():
            p.requires_grad_(name.endswith(".bias"))
    elif method == "ft-norm":
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                train_fully(module)
    elif method in ("ft-blocks", "mobiletl"):
        assert k is not None
        for part in (*net.blocks[-k:], *above):
            train_fully(part)
        if method == "mobiletl":
            for block in net.blocks[-k:]:
                mobiletl_block(block)
            for part in above:
                signed(part)
    net.classifier[-1].requires_grad_(True)
