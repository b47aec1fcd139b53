"""What a case computes: an op or a block, its attributes, its parameters, and how to run it on a tape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl import methods, networks, ops
from minitl.arrays import Array, Shape, is_count
from minitl.blocks import SqueezeExcite
from minitl.errors import ValueRangeError, unknown
from minitl.layers import LayerPlan
from minitl.networks.irb import PAPER
from minitl.networks.network import build
from minitl.oracle import updates
from minitl.oracle.bounds import DESCRIBED, kinks
from minitl.oracle.data import Source
from minitl.parameters import Parameter
from minitl.records import Var
from minitl.tape import Tape

METHODS = {
    "ft": "ft-blocks",
    "mobiletl": "mobiletl",
    "mobiletl-exact": "mobiletl-exact",
    "mobiletl-recompute": "mobiletl-recompute",
}
ACTIVATIONS = DESCRIBED
FLAT = ("linear", "cross_entropy")  # ops whose input is (N, C)
SECOND = {"scale": "gate", "add": "y"}  # ops of two operands: what the other one is called
ALL = "all"  # of `train`: every parameter the op has a gradient for
CHOICES = {
    "activation": ("relu", "relu6", "hard_swish"),  # of a block
    "variance": ("unbiased", "biased"),  # of the running estimate
    "labels": ("index", "onehot"),
    "reduction": ("mean", "sum"),  # of the loss over the batch
}
SYMMETRIC, SAME, VALID = "symmetric", "same", "valid"  # paddings; else "top,bottom,left,right"

ATTRS: dict[str, dict[str, Any]] = {
    "conv": {
        "channels": 3,
        "out_channels": 5,
        "kernel": 3,
        "stride": 1,
        "padding": SYMMETRIC,
        "bias": False,
        "train": ALL,
    },
    "pointwise_conv": {"channels": 6, "out_channels": 5, "bias": False, "train": ALL},
    "depthwise_conv": {"channels": 5, "kernel": 3, "stride": 1, "padding": SYMMETRIC, "bias": False, "train": ALL},
    "batch_norm": {"channels": 5, "eps": 1e-5, "momentum": 0.1, "variance": "unbiased", "train": ALL},
    "frozen_norm": {"channels": 5, "eps": 1e-5, "train": ALL},
    **{name: {"channels": 5, "rule": ""} for name in ACTIVATIONS},
    "squeeze_excite": {"channels": 7, "se_channels": 3, "train": ALL},
    "scale": {"channels": 5},
    "add": {"channels": 5},
    "global_avg_pool": {"channels": 5},
    "linear": {"channels": 7, "out_channels": 5, "bias": True, "train": ALL},
    "cross_entropy": {"channels": 7, "labels": "index", "reduction": "mean"},
    **updates.ATTRS,
    "irb": {
        **PAPER,
        **{"in_channels": 5, "expanded_channels": 7, "out_channels": 5, "kernel": 3, "se_channels": 0},
        **{"eps": 1e-3, "momentum": 0.01, "variance": "unbiased"},
    },
}


@dataclass(frozen=True)
class Recipe:
    """An op or block with all its attributes, and the size of its input."""

    op: str
    attrs: dict[str, Any]
    method: str
    batch: int
    height: int
    width: int

    @property
    def input_shape(self) -> Shape:
        """(N, H, W, C), or (N, C) for the ops on vectors; (size,) for an optimizer's."""
        if self.op in updates.ATTRS:
            return (self.attrs["size"],)
        channels = self.attrs["in_channels" if self.op == "irb" else "channels"]
        return (self.batch, channels) if self.op in FLAT else (self.batch, self.height, self.width, channels)

    @property
    def rule(self) -> str:
        """The backward rule of a single op; an irb's rows name those of its layers."""
        if self.op in ("irb", "squeeze_excite", *updates.ATTRS):
            return ""
        return str(self.attrs.get("rule") or getattr(ops, self.op).rules[0])


@dataclass(eq=False)
class Ran:
    """A forward pass: the output, the parameters it used, and whether its gradients are exact."""

    output: Var
    parameters: dict[str, Parameter]
    exact: bool


def recipe(op: str, method: str, attrs: Mapping[str, Any], batch: int, height: int, width: int) -> Recipe:
    """A recipe with every attribute filled in and checked."""
    if op not in ATTRS:
        raise unknown("op", op, ATTRS)
    if op == "irb" and method not in METHODS:
        raise unknown("method", method, METHODS, op="irb")
    for name, value in attrs.items():
        if name not in ATTRS[op]:
            raise unknown("attribute", name, ATTRS[op], op=op)
        _check_type(op, name, value)
    for name, value in (("batch", batch), ("height", height), ("width", width)):
        if not is_count(value, least=1):
            raise ValueRangeError(op=op, expected=f"{name} at least 1", got=str(value))
    full = {**ATTRS[op], **attrs}
    if full.get("padding", SYMMETRIC) != SYMMETRIC:
        _expect_output(op, full, (height, width))
    if "train" in full:
        full["train"] = _train(op, full)
    if "rule" in full:
        known = getattr(ops, op).rules
        full["rule"] = full["rule"] or known[0]
        if full["rule"] not in known:
            raise unknown("backward rule", full["rule"], known, op=op)
    return Recipe(op, full, method if op == "irb" else "", batch, height, width)


def padding(attrs: Mapping[str, Any], extents: Sequence[int]) -> tuple[int, ...]:
    """Zeros before and after each axis: (top, bottom, left, right)."""
    kernel, stride, text = attrs["kernel"], attrs["stride"], attrs["padding"]
    if text in (SYMMETRIC, VALID):
        return (kernel // 2 * (text == SYMMETRIC),) * 4
    if text == SAME:
        needed = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in extents]
        return tuple(side for total in needed for side in (total // 2, total - total // 2))
    return tuple(int(side) for side in text.split(","))


def _expect_output(op: str, attrs: Mapping[str, Any], extents: Sequence[int]) -> None:
    if "padding" not in getattr(ops, op).attrs:
        raise ValueRangeError(op=op, expected="padding symmetric, the only one it has", got=attrs["padding"])
    top, bottom, left, right = padding(attrs, extents)
    padded = extents[0] + top + bottom, extents[1] + left + right
    if min(padded) < attrs["kernel"]:
        raise ValueRangeError(op=op, expected=f"a map of at least {attrs['kernel']} with its padding", got=str(padded))


def _is_padding(text: object) -> bool:
    sides = text.split(",") if isinstance(text, str) else []
    return text in (SYMMETRIC, SAME, VALID) or (len(sides) == 4 and all(s.isdecimal() and int(s) < 32 for s in sides))


def _check_type(op: str, name: str, value: Any) -> None:
    default = ATTRS[op][name]
    if name in CHOICES and value not in CHOICES[name]:
        raise unknown(name, value, CHOICES[name], op=op)
    if name == "train":
        good = isinstance(value, str | list | tuple)
    elif name == "padding":
        good = _is_padding(value)
    elif isinstance(default, float):
        least_fits = value == 0 if name in ("momentum", "weight_decay") and op in updates.ATTRS else False
        good = isinstance(value, int | float) and not isinstance(value, bool) and (0 < value < 1 or least_fits)
    elif isinstance(default, bool | str):
        good = type(value) is type(default)
    else:
        good = is_count(value, least=0 if name == "se_channels" and op == "irb" else 1) and value <= (
            31 if name == "kernel" else 4096
        )
    if not good:
        raise ValueRangeError(op=op, expected=f"{name} like {default}", got=repr(value))


def _train(op: str, full: Mapping[str, Any]) -> list[str]:
    known = [name for name in _shapes(op, full) if trainable(op, name)]
    train = full["train"]
    if isinstance(train, str):
        train = known if train == ALL else [name for name in train.split(",") if name not in ("", "none")]
    for name in train:
        if name not in known:
            raise unknown("trained parameter", name, known, op=op)
    return [name for name in known if name in train]


def trainable(op: str, name: str) -> bool:
    """Whether the op gives a gradient for that parameter."""
    return not is_statistic(name) and (op == "squeeze_excite" or name not in getattr(ops, op).never)


def is_statistic(name: str) -> bool:
    """Whether the parameter is a running statistic."""
    return name.rsplit(".", 1)[-1].startswith("running_")


def _shapes(op: str, a: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of a single op's parameters."""
    c, o, k = a.get("channels", 0), a.get("out_channels", 0), a.get("kernel", 1)
    if op == "squeeze_excite":
        s = a["se_channels"]
        return {"fc1.weight": (s, c, 1, 1), "fc1.bias": (s,), "fc2.weight": (c, s, 1, 1), "fc2.bias": (c,)}
    if op in ("batch_norm", "frozen_norm"):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (c,))
    weight = {"conv": (o, c, k, k), "pointwise_conv": (o, c, 1, 1), "depthwise_conv": (c, 1, k, k), "linear": (o, c)}
    shapes: dict[str, Shape] = {"weight": weight[op]} if op in weight else {}
    return shapes | ({"bias": (o or c,)} if a.get("bias") else {})


# Inputs.


def draw(r: Recipe, source: Source) -> dict[str, Array]:
    """Input and parameters as float64 arrays (N, H, W, C) under the case's names."""
    values = {"input.x": _draw_input(r, source)}
    if r.op == "cross_entropy":
        values["input.labels"] = source.integers((r.batch,), r.attrs["channels"])
    if r.op in SECOND:
        n, *area, c = r.input_shape
        shape = (n, 1, 1, c) if r.op == "scale" else (n, *area, c)
        values[f"input.{SECOND[r.op]}"] = source.normal(shape)
    shapes = _shapes(r.op, r.attrs) if r.op != "irb" else {p.name: p.value.shape for p in _block(r, "float64")}
    for name, shape in shapes.items():
        values[f"{'buffer' if is_statistic(name) else 'param'}.{name}"] = _draw_parameter(r, name, shape, source)
    return values


def _draw_input(r: Recipe, source: Source) -> Array:
    shape = r.input_shape
    if r.op not in ACTIVATIONS:
        return source.normal(shape, 2.0 if r.op == "cross_entropy" else 1.0)
    x = source.steps(shape, 72, 0.125)
    flat, exact = x.reshape(-1), [k for k in kinks(r.op, r.rule) if k * 8 == round(k * 8)]
    for i, kink in enumerate([*exact, 0.0, *exact]):
        if 3 * i < flat.size:
            flat[3 * i] = kink
    return x


def _draw_parameter(r: Recipe, name: str, shape: Shape, source: Source) -> Array:
    *layers, kind = name.split(".")
    layer, fan = ".".join(layers), int(np.prod(shape[1:]))
    if kind == "running_mean":
        return source.normal(shape, 0.3)
    if kind == "running_var":
        return source.uniform(shape, 0.6, 1.8)
    if kind == "weight" and len(shape) == 1:
        inner = layer in ("expand_norm", "depthwise_norm")
        sizes = source.uniform(shape, 1.5, 3.5) if inner else source.uniform(shape, 0.5, 1.5)
        signs = 1 - 2 * ((np.arange(len(sizes)) + source.integers((1,), 2)) % 2)  # both, so that none may be lost
        return np.asarray(sizes * signs)
    if kind == "weight":
        spread = {"depthwise": 0.4, "project": 0.5, "se.fc2": 2.0, "fc2": 2.0}.get(layer, 1.0)
        return source.normal(shape, spread / fan**0.5)
    return source.normal(shape, 3.0 if layer.endswith("fc2") else 1.0, 1.0 if layer.endswith("_norm") else 0.0)


# Running.


def _block(r: Recipe, dtype: str) -> list[Parameter]:
    return list(_model(r, dtype).parameters())


def _model(r: Recipe, dtype: str) -> Any:
    attrs = {name: value for name, value in r.attrs.items() if name != "variance"}
    return networks.irb(dtype=dtype, input_grad=True, **attrs)


def run(r: Recipe, values: Mapping[str, Array], tape: Tape, dtype: str = "float64") -> Ran:
    """The forward pass on that tape, with the input as a variable."""
    floats = {n: v if n == "input.labels" else np.array(v, dtype, order="C") for n, v in values.items()}
    return {"irb": _run_irb, "squeeze_excite": _run_squeeze_excite}.get(r.op, _run_op)(r, floats, tape)


def input_gradients(r: Recipe, by_source: Mapping[int, Array]) -> dict[str, Array]:
    """The gradients of the operands under the case's names, from those of a tape's variables, the first being x."""
    names = ("x", *([SECOND[r.op]] if r.op in SECOND else []))
    return {
        f"grad_input.{name}": by_source[source] for name, source in zip(names, sorted(by_source)[::-1], strict=True)
    }


def _run_irb(r: Recipe, values: Mapping[str, Array], tape: Tape) -> Ran:
    model = _model(r, values["input.x"].dtype.name)
    methods.get(METHODS[r.method], 1).apply(model)
    parameters = {p.name: p for p in model.parameters()}
    _fill(parameters, values)
    return Ran(model(tape, values["input.x"]), parameters, model.exact)


def _run_squeeze_excite(r: Recipe, values: Mapping[str, Array], tape: Tape) -> Ran:
    make = build(0, values["input.x"].dtype.name, eps=1e-5, momentum=0.1)
    block = SqueezeExcite(r.attrs["channels"], r.attrs["se_channels"], lambda name: name.removeprefix("se."), make)
    parameters: dict[str, Parameter] = {}
    for layer in block.layers():
        own = {name for name in layer.parameters if f"{layer.path}.{name}" in r.attrs["train"]}
        layer.apply(LayerPlan(train=frozenset(own)))
        parameters |= {p.name: p for p in layer.parameters.values()}
    _fill(parameters, values)
    return Ran(block(tape, tape.variable(Var(values["input.x"]))), parameters, True)


def _run_op(r: Recipe, values: Mapping[str, Array], tape: Tape) -> Ran:
    op = getattr(ops, r.op)
    parameters = {
        name: Parameter(name, values[_key(name)], name in r.attrs.get("train", ()), is_statistic(name))
        for name in _shapes(r.op, r.attrs)
    }
    extra = [tape.labels(values["input.labels"])] if r.op == "cross_entropy" else []
    attrs = {name: r.attrs[name] for name in op.attrs if name in r.attrs and name != "padding"}
    if r.attrs.get("padding", SYMMETRIC) != SYMMETRIC:
        attrs["padding"] = padding(r.attrs, (r.height, r.width))
    x = tape.variable(Var(values["input.x"]))
    if r.op in SECOND:
        extra = [tape.variable(Var(values[f"input.{SECOND[r.op]}"]))]
    y = tape.run(op, x, *extra, *parameters.values(), layer="", role="", rule=r.rule, attrs=attrs)
    return Ran(y, parameters, r.rule not in op.approximate)


def _fill(parameters: Mapping[str, Parameter], values: Mapping[str, Array]) -> None:
    for name, parameter in parameters.items():
        parameter.assign(values[_key(name)])


def _key(name: str) -> str:
    return f"{'buffer' if is_statistic(name) else 'param'}.{name}"


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
