"""What a case computes: an op, a block or a network, with its attributes checked and filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minitl import ops
from minitl.arrays import Shape
from minitl.checks import as_count, as_number, expect_count
from minitl.errors import ValueRangeError, unknown
from minitl.networks.irb import PAPER
from minitl.ops.op import Op
from minitl.ops.rules.gradient_filter import PATCH
from minitl.oracle import mechanisms, updates
from minitl.oracle.bounds.activations import DESCRIBED

METHODS = {
    "ft": "ft-blocks",
    "mobiletl": "mobiletl",
    "mobiletl-exact": "mobiletl-exact",
    "mobiletl-recompute": "mobiletl-recompute",
}
NETWORK_METHODS = {"ft-all": "ft-all", **METHODS}
ACTIVATIONS = DESCRIBED
BLOCKS = ("irb", "network")  # what a method is applied to
FLAT = ("linear", "pruned_linear", "cross_entropy")  # ops whose input is (N, C)
SECOND = {"scale": "gate", "add": "y", **mechanisms.SECOND}  # ops of two operands: what the other one is called
COMPOSITES = ("squeeze_excite", "residual", "pooled_head", *BLOCKS)  # several ops
ALL = "all"  # of `train`: every parameter the op has a gradient for
CHOICES = {
    "activation": ("relu", "relu6", "hard_swish"),  # of a block
    "variance": ("unbiased", "biased"),  # of the running estimate
    "labels": ("index", "onehot"),
    "reduction": ("mean", "sum"),  # of the loss over the batch
    "patch": tuple(PATCH.values()),
}
SYMMETRIC, SAME, VALID = "symmetric", "same", "valid"  # paddings; else "top,bottom,left,right"
LISTS = ("kernels", "strides", "expanded", "channels", "se")  # of a network: a number per block

_CONV = {"kernel": 3, "stride": 1, "padding": SYMMETRIC}
_GROUPED = {"channels": 6, "out_channels": 4, "groups": 2, **_CONV}
_NORM = {"eps": 1e-5, "momentum": 0.1, "variance": "unbiased"}
ATTRS: dict[str, dict[str, Any]] = {
    "conv": {"channels": 3, "out_channels": 5, **_CONV, "bias": False, "train": ALL},
    "pointwise_conv": {"channels": 6, "out_channels": 5, "bias": False, "train": ALL},
    "depthwise_conv": {"channels": 5, **_CONV, "bias": False, "train": ALL},
    "grouped_conv": {**_GROUPED, "train": ALL},
    "standardised_conv": {**_GROUPED, "train": ALL},
    "filtered_conv": {"channels": 3, "out_channels": 5, "kernel": 3, "stride": 1, "patch": 2, "train": ALL},
    "batch_norm": {"channels": 5, **_NORM, "train": ALL},
    "frozen_norm": {"channels": 5, "eps": 1e-5, "train": ALL},
    "group_norm": {"channels": 6, "groups": 2, "eps": 1e-5, "train": ALL},
    **{name: {"channels": 5, "rule": ""} for name in ACTIVATIONS},
    "squeeze_excite": {"channels": 7, "se_channels": 3, "train": ALL},
    "scale": {"channels": 5},
    "add": {"channels": 5},
    "global_avg_pool": {"channels": 5},
    "avg_pool": {"channels": 5, "window": 2},
    "bilinear_up": {"channels": 5, "out_height": 8, "out_width": 7},
    "linear": {"channels": 7, "out_channels": 5, "bias": True, "train": ALL},
    "pooled_head": {"channels": 7, "out_channels": 5, "train": ALL},
    "cross_entropy": {"channels": 7, "labels": "index", "reduction": "mean"},
    **mechanisms.ATTRS,
    **updates.ATTRS,
    "residual": {"channels": 5, "kernel": 3, "activation": "relu", **_NORM},
    "irb": {
        **PAPER,
        **{"in_channels": 5, "expanded_channels": 7, "out_channels": 5, "kernel": 3, "se_channels": 0},
        **{"eps": 1e-3, "momentum": 0.01, "variance": "unbiased"},
    },
    "network": {
        **{"stem": 6, "kernels": "3,5", "strides": "1,2", "expanded": "9,10", "channels": "6,7", "se": "0,4"},
        **{"head": 11, "classes": 5, "activation": "hard_swish", "tuned": 2, "lr": 0.05},
        **{"eps": 1e-3, "momentum": 0.01, "variance": "unbiased"},
    },
}


@dataclass(frozen=True)
class Recipe:
    """An op, a block or a network with all its attributes, and the size of its input."""

    op: str
    attrs: dict[str, Any]
    method: str
    batch: int
    height: int
    width: int

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def input_shape(self) -> Shape:
        """(N, H, W, C), or (N, C) for the ops on vectors; (size,) for an optimizer's."""
        if self.op in updates.ATTRS:
            return (self.attrs["size"],)
        channels = 3 if self.op == "network" else self.attrs["in_channels" if self.op == "irb" else "channels"]
        return (self.batch, channels) if self.op in FLAT else (self.batch, self.height, self.width, channels)

    @property
    def operands(self) -> tuple[str, ...]:
        """What a gradient is wanted of, beside the parameters."""
        return ("x", SECOND[self.op]) if self.op in SECOND else ("x",)

    @property
    def rule(self) -> str:
        """The backward rule of a single op; the rows of a block name those of its layers."""
        if self.op in (*COMPOSITES, *updates.ATTRS):
            return ""
        if self.op in mechanisms.ATTRS:
            return mechanisms.rule(self.op, self.attrs)
        if self.op == "filtered_conv":
            return next(name for name, patch in PATCH.items() if patch == self.attrs["patch"])
        return str(self.attrs.get("rule") or getattr(ops, self.op).rules[0])

    @property
    def runs(self) -> Op:
        """minitl's op, of a single one."""
        if self.op in mechanisms.ATTRS:
            return mechanisms.the_op(self.op, self.attrs)
        pointwise = self.op == "filtered_conv" and self.attrs["kernel"] == self.attrs["stride"] == 1
        found: Op = getattr(ops, "pointwise_conv" if pointwise else self.op.replace("filtered_", ""))
        return found


def numbers(text: str) -> list[int]:
    """Those of a list such as "3,5"."""
    return [int(part) for part in text.split(",")]


def recipe(op: str, method: str, attrs: Mapping[str, Any], batch: int, height: int, width: int) -> Recipe:
    """A recipe with every attribute filled in and checked."""
    if op not in ATTRS:
        raise unknown("op", op, ATTRS)
    known_methods = {"irb": METHODS, "network": NETWORK_METHODS}.get(op, {})
    if known_methods and method not in known_methods:
        raise unknown("method", method, known_methods, op=op)
    full = ATTRS[op] | {name: _checked(op, name, value) for name, value in attrs.items()}
    named = {"batch": batch, "height": height, "width": width}
    batch, height, width = (expect_count(name, value, least=1, op=op) for name, value in named.items())
    if full.get("padding", SYMMETRIC) != SYMMETRIC:
        _expect_output(op, full, (height, width))
    if op == "network":
        _expect_blocks(full)
    if "train" in full:
        full["train"] = _train(op, full, (height, width))
    if "rule" in full:
        known = mechanisms.RULES[op] if op in mechanisms.RULES else getattr(ops, op).rules
        full["rule"] = full["rule"] or known[0]
        if full["rule"] not in known:
            raise unknown("backward rule", full["rule"], known, op=op)
    return Recipe(op, full, method if known_methods else "", batch, height, width)


def padding(attrs: Mapping[str, Any], extents: Sequence[int]) -> tuple[int, ...]:
    """Zeros before and after each axis: (top, bottom, left, right)."""
    kernel, stride, text = attrs["kernel"], attrs.get("stride", 1), attrs.get("padding", SYMMETRIC)
    if text in (SYMMETRIC, VALID):
        return (kernel // 2 * (text == SYMMETRIC),) * 4
    if text == SAME:
        needed = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in extents]
        return tuple(side for total in needed for side in (total // 2, total - total // 2))
    return tuple(int(side) for side in text.split(","))


def _expect_output(op: str, attrs: Mapping[str, Any], extents: Sequence[int]) -> None:
    top, bottom, left, right = padding(attrs, extents)
    padded = extents[0] + top + bottom, extents[1] + left + right
    if min(padded) < attrs["kernel"]:
        raise ValueRangeError(op=op, expected=f"a map of at least {attrs['kernel']} with its padding", got=str(padded))


def _expect_blocks(attrs: Mapping[str, Any]) -> None:
    """Lists of one length, at least as long as there are tuned blocks."""
    lengths = {name: len(numbers(attrs[name])) for name in LISTS}
    if len(set(lengths.values())) > 1:
        raise ValueRangeError(op="network", expected="lists of one number per block", got=str(lengths))
    if attrs["tuned"] > lengths["channels"]:
        got = f"{attrs['tuned']} of {lengths['channels']}"
        raise ValueRangeError(op="network", expected="no more tuned blocks than there are", got=got)


def _is_list(text: object) -> bool:
    parts = text.split(",") if isinstance(text, str) else []
    return bool(parts) and all(part.isdecimal() and int(part) <= 4096 for part in parts)


def _is_padding(text: object) -> bool:
    sides = text.split(",") if isinstance(text, str) else []
    return text in (SYMMETRIC, SAME, VALID) or (len(sides) == 4 and all(s.isdecimal() and int(s) < 32 for s in sides))


def _checked(op: str, name: str, value: Any) -> Any:
    """The value of an attribute, numbers as Python's own."""
    if name not in ATTRS[op]:
        raise unknown("attribute", name, ATTRS[op], op=op)
    default = ATTRS[op][name]
    if name in CHOICES and value not in CHOICES[name]:
        raise unknown(name, value, CHOICES[name], op=op)
    if name == "train":
        good = isinstance(value, str | list | tuple)
    elif name == "padding":
        good = _is_padding(value)
    elif op == "network" and name in LISTS:
        good = _is_list(value)
    elif isinstance(default, float):
        may_be_0 = name in ("momentum", "weight_decay") and op in updates.ATTRS
        number = as_number(value)
        good = number is not None and (0 < number < 1 or (may_be_0 and number == 0))
        value = number if good else value
    elif isinstance(default, bool | str):
        good = type(value) is type(default)
    else:
        count = as_count(value, least=0 if name == "se_channels" and op == "irb" else 1)
        good = count is not None and count <= (31 if name == "kernel" else 4096)
        value = count if good else value
    if not good:
        raise ValueRangeError(op=op, expected=f"{name} like {default}", got=repr(value))
    return value


def _train(op: str, full: Mapping[str, Any], extents: tuple[int, int]) -> list[str]:
    known = [name for name in shapes(op, full, *extents) if trainable(op, name)]
    train = full["train"]
    if isinstance(train, str):
        train = known if train == ALL else [name for name in train.split(",") if name not in ("", "none")]
    for name in train:
        if name not in known:
            raise unknown("trained parameter", name, known, op=op)
    return [name for name in known if name in train]


def trainable(op: str, name: str) -> bool:
    """Whether the op gives a gradient for that parameter."""
    if is_statistic(name) or op in (*COMPOSITES, *mechanisms.ATTRS, "filtered_conv"):
        return not is_statistic(name)
    return name not in getattr(ops, op).never


def is_statistic(name: str) -> bool:
    """Whether the parameter is no parameter but a running statistic, or a basis."""
    return name.rsplit(".", 1)[-1].startswith(("running_", "basis_"))


def shapes(op: str, a: Mapping[str, Any], height: int, width: int) -> dict[str, Shape]:
    """Shapes of the parameters of everything but the blocks, whose layers know theirs; `height`, `width` are x's."""
    if op in mechanisms.ATTRS:
        return mechanisms.shapes(op, a, height, width)
    c, o, k = a.get("channels", 0), a.get("out_channels", 0), a.get("kernel", 1)
    if op == "squeeze_excite":
        s = a["se_channels"]
        return {"fc1.weight": (s, c, 1, 1), "fc1.bias": (s,), "fc2.weight": (c, s, 1, 1), "fc2.bias": (c,)}
    if op == "residual":
        norm = ("weight", "bias", "running_mean", "running_var")
        parts = [{f"conv{i}.weight": (c, c, k, k), **{f"norm{i}.{n}": (c,) for n in norm}} for i in (1, 2)]
        return parts[0] | parts[1]
    if op in ("batch_norm", "frozen_norm"):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (c,))
    if op == "group_norm":
        return dict.fromkeys(("weight", "bias"), (c,))
    weights: dict[str, Shape] = {
        **dict.fromkeys(("conv", "filtered_conv"), (o, c, k, k)),
        **dict.fromkeys(("grouped_conv", "standardised_conv"), (o, c // a.get("groups", 1), k, k)),
        **dict.fromkeys(("linear", "pooled_head"), (o, c)),
        **{"pointwise_conv": (o, c, 1, 1), "depthwise_conv": (c, 1, k, k)},
    }
    found: dict[str, Shape] = {"weight": weights[op]} if op in weights else {}
    return found | ({"bias": (o or c,)} if a.get("bias") or op == "pooled_head" else {})


READERS: dict[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
    str: str,
}


def parse_attr(op: str, pair: str) -> tuple[str, Any]:
    """`kernel=3` as a name and a value of the attribute's type."""
    if op not in ATTRS:
        raise unknown("op", op, ATTRS)
    name, equals, text = pair.partition("=")
    if not equals or name not in ATTRS[op]:
        raise unknown("attribute", pair, [f"{key}=..." for key in ATTRS[op]], op=op)
    try:
        return name, READERS[type(ATTRS[op][name])](text)
    except (KeyError, ValueError):
        raise ValueRangeError(op=op, expected=f"--attr {name} like {ATTRS[op][name]}", got=repr(text)) from None
