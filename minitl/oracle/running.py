"""Run what a case computes on a tape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minitl import methods, networks, ops
from minitl.arrays import Array
from minitl.blocks import SqueezeExcite
from minitl.layers import LayerPlan, cross_entropy
from minitl.networks.model import Model
from minitl.networks.network import build
from minitl.oracle import mechanisms
from minitl.oracle.network import network
from minitl.oracle.recipes import NETWORK_METHODS, SYMMETRIC, Recipe, is_statistic, padding, shapes
from minitl.parameters import Parameter
from minitl.records import Var
from minitl.tape import Tape


@dataclass(eq=False)
class Ran:
    """A forward pass: the output, the parameters it used, and whether its gradients are exact.

    `more` are further results of the forward, by name.
    """

    output: Var
    parameters: dict[str, Parameter]
    exact: bool
    more: dict[str, Var] = field(default_factory=dict)


def model(r: Recipe, dtype: str) -> Model:
    """The block or the network, with its method applied."""
    if r.op == "network":
        made: Model = network(r.attrs, dtype)
    else:
        attrs = {name: value for name, value in r.attrs.items() if name != "variance"}
        made = networks.irb(dtype=dtype, input_grad=True, **attrs)
    takes_all = r.method == "ft-all"
    return methods.get(NETWORK_METHODS[r.method], None if takes_all else r.attrs.get("tuned", 1)).apply(made)


def run(r: Recipe, values: Mapping[str, Array], tape: Tape, dtype: str = "float64") -> Ran:
    """The forward pass on that tape, with the input as a variable."""
    floats = {n: v if n == "input.labels" else np.array(v, dtype, order="C") for n, v in values.items()}
    how = {
        "irb": _run_model,
        "network": _run_model,
        "squeeze_excite": _run_squeeze_excite,
        "residual": _run_residual,
        "pooled_head": _run_pooled_head,
    }
    return how.get(r.op, _run_op)(r, floats, tape)


def input_gradients(r: Recipe, by_source: Mapping[int, Array]) -> dict[str, Array]:
    """The gradients of the operands under the case's names, from those of a tape's variables, the first being x."""
    if r.op == "network":  # whose images are not differentiated
        return {}
    sources = zip(r.operands, sorted(by_source)[::-1], strict=True)
    return {f"grad_input.{name}": by_source[source] for name, source in sources}


def updated(r: Recipe, values: Mapping[str, Array], gradients: Mapping[str, Array]) -> dict[str, Array]:
    """A network's trained parameters after one step of plain SGD, from the gradients by the case's names."""
    if r.op != "network":
        return {}
    names = [name.removeprefix("grad_param.") for name in gradients if name.startswith("grad_param.")]
    return {f"param_after.{n}": values[f"param.{n}"] - r.attrs["lr"] * gradients[f"grad_param.{n}"] for n in names}


def _run_model(r: Recipe, values: Mapping[str, Array], tape: Tape) -> Ran:
    made = model(r, values["input.x"].dtype.name)
    parameters = {p.name: p for p in made.parameters()}
    _fill(parameters, values)
    output = made(tape, values["input.x"])
    if r.op == "irb":
        return Ran(output, parameters, made.exact)
    loss = cross_entropy(tape, output, values["input.labels"])
    return Ran(loss, parameters, made.exact, {"output.logits": output})


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


def _run_residual(r: Recipe, values: Mapping[str, Array], tape: Tape) -> Ran:
    """relu(x + norm2(conv2(relu(norm1(conv1(x)))))), for relu or another activation."""
    own = _parameters(r, values)
    act = getattr(ops, r.attrs["activation"])
    x = h = tape.variable(Var(values["input.x"]))
    for i in (1, 2):
        of_norm = [own[f"norm{i}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
        norm = {name: r.attrs[name] for name in ("eps", "momentum")}
        h = tape.run(ops.conv, h, own[f"conv{i}.weight"], layer=f"conv{i}", role="")
        h = tape.run(ops.batch_norm, h, *of_norm, layer=f"norm{i}", role="", attrs=norm)
        if i == 2:
            h = tape.run(ops.add, h, x, layer="add", role="")
        h = tape.run(act, h, layer=f"act{i}", role="")
    return Ran(h, own, True)


def _run_pooled_head(r: Recipe, values: Mapping[str, Array], tape: Tape) -> Ran:
    own = _parameters(r, values)
    pooled = tape.run(ops.global_avg_pool, tape.variable(Var(values["input.x"])), layer="pool", role="")
    return Ran(tape.run(ops.linear, pooled, *own.values(), layer="", role=""), own, True)


def _run_op(r: Recipe, values: Mapping[str, Array], tape: Tape) -> Ran:
    op, parameters = r.runs, _parameters(r, values)
    operands = [tape.variable(Var(values[f"input.{name}"])) for name in r.operands]
    operands += [tape.labels(values["input.labels"])] if r.op == "cross_entropy" else []
    y = tape.run(op, *operands, *parameters.values(), layer="", role="", rule=r.rule, attrs=_attrs(r, values))
    return Ran(y, parameters, r.rule not in op.approximate)


def _attrs(r: Recipe, values: Mapping[str, Array]) -> dict[str, Any]:
    """The attributes of a single op, as the op has them."""
    if r.op in mechanisms.ATTRS:
        return mechanisms.attrs(r.op, r.attrs, values)
    op = r.runs
    attrs = {name: r.attrs[name] for name in op.attrs if name in r.attrs and name not in ("padding", "channels")}
    if r.attrs.get("padding", SYMMETRIC) != SYMMETRIC:
        attrs["padding"] = padding(r.attrs, (r.height, r.width))
    if r.op == "bilinear_up":
        attrs["size"] = (r.attrs["out_height"], r.attrs["out_width"])
    return attrs


def _parameters(r: Recipe, values: Mapping[str, Array]) -> dict[str, Parameter]:
    """Those of anything but a block, trained as `train` says, and all where it says nothing."""
    names = shapes(r.op, r.attrs, r.height, r.width)
    train = r.attrs.get("train", [name for name in names if not is_statistic(name)])
    return {name: Parameter(name, values[_key(name)], name in train, is_statistic(name)) for name in names}


def _fill(parameters: Mapping[str, Parameter], values: Mapping[str, Array]) -> None:
    for name, parameter in parameters.items():
        parameter.assign(values[_key(name)])


def _key(name: str) -> str:
    return f"{'buffer' if is_statistic(name) else 'param'}.{name}"
