"""Mistakes told from a result alone: the right numbers, scaled, moved, turned, rounded or exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import numpy as np

from minitl.arrays import Array
from minitl.oracle.case import Case
from minitl.oracle.forms import form_of
from minitl.oracle.mistakes.activations import FUNCTIONS, left_in
from minitl.oracle.mistakes.formats import FORMATS
from minitl.oracle.updates import RATES

FACTORS = ((2.0, "doubled"), (0.5, "halved"), (-1.0, "of the wrong sign"))
Results = Iterator[tuple[str, Array]]


def mistakes(case: Case, name: str) -> Results:
    """What usual mistakes make of that tensor, without a computation."""
    expected = case.tensors[name]
    kind = name.split(".")[0]
    yield from {"grad_input": _of_gradient, "grad_param": _of_gradient, "param_after": _of_update}.get(kind, _of_value)(
        case, name, expected
    )
    if name.startswith("buffer_after.") and name.endswith(("running_mean", "running_var")):
        yield from _running(case, name, expected)
    if name.endswith("inv_std"):
        yield "the standard deviation in place of its inverse", 1 / expected
    yield from _moved(case, name, expected)
    yield from _turned(name, expected)
    for text, rounded in FORMATS.items():
        yield f"low precision: rounded to {text}", rounded(expected)
    for other, tensor in case.expected.items():
        if (
            other != name
            and other.split(".")[0] in ("output", "grad_input", "grad_param")
            and tensor.shape == expected.shape
        ):
            yield f"{short(name)} and {short(other)} exchanged: this is {other}", tensor


def short(name: str) -> str:
    """What a result is called in formulas."""
    return {"output": "y", "grad_input.x": "gx"}.get(name, "gw" if name.endswith("weight") else "gb")


def _of_gradient(case: Case, name: str, expected: Array) -> Results:
    batch, output = case.attrs["batch"], case.tensors["output"]
    yield "a missing gradient: it is zero", np.zeros_like(expected)
    for factor, text in FACTORS:
        yield f"a gradient {text}", factor * expected
    if batch > 1:
        yield "a mean over the batch instead of a sum", expected / batch
        yield "a sum over the batch instead of a mean", expected * batch
    if output.ndim == 4:
        axis = 1 if case.layout == "nchw" else -1
        yield "a mean over all positions instead of a sum", expected * output.shape[axis] / output.size
    weight = form_of(case).taken(name, expected)
    if name.endswith("weight") and weight.ndim == 4 and weight.shape[2] > 1:
        yield "filter flipped", form_of(case).stored(name, weight[:, :, ::-1, ::-1])


def _of_update(case: Case, name: str, expected: Array) -> Results:
    """Mistakes in the step from a parameter to the updated one."""
    before = case.tensors[name.replace("_after", "", 1)].astype(np.float64)
    moved = expected - before
    yield "the update was not applied", before
    yield "the update was applied twice", before + 2 * moved
    for factor, text in RATES:
        yield f"the learning rate {text}", before + factor * moved
    yield "only the step, not the parameter after it", moved
    for factor, text in ((case.attrs["batch"], "a gradient summed over the batch"), (0.5, "a gradient halved")):
        yield f"the update from {text}", before + factor * moved


def _of_value(case: Case, name: str, expected: Array) -> Results:
    yield "all zero", np.zeros_like(expected)
    for factor, text in FACTORS:
        yield text, factor * expected
    if name == "output":
        for op, (value, _) in FUNCTIONS.items():
            yield left_in(op), value(expected)


def _running(case: Case, name: str, expected: Array) -> Results:
    """Mistakes in moving a running statistic."""
    layer, _, kind = name.removeprefix("buffer_after.").rpartition(".")
    before = case.tensors[f"buffer.{name.removeprefix('buffer_after.')}"].astype(np.float64)
    momentum = case.conventions["momentum"]
    batch = (expected - before) / momentum + before
    if kind == "running_var":
        m = _positions(case, layer)
        if case.attrs.get("variance") == "biased":
            yield "unbiased running variance: divide by M here", before + momentum * (batch * m / (m - 1) - before)
        else:
            yield "biased running variance: divide by M - 1", before + momentum * (batch * (m - 1) / m - before)
        yield "the deviation in place of the variance", before + momentum * (np.sqrt(batch) - before)
    other = {"running_mean": "running_var", "running_var": "running_mean"}[kind]
    yield "running mean and variance exchanged", case.tensors[f"{name.removesuffix(kind)}{other}"]
    rounded = float(np.float32(momentum))
    yield "momentum rounded to float32", before + rounded * (batch - before)
    yield "the running statistic was not moved", before
    yield "momentum the wrong way round: it is the weight of the new value", momentum * before + (1 - momentum) * batch
    yield "momentum of the wrong sign: the statistic moves away from the batch's", before - momentum * (batch - before)
    yield "the old value is not taken off: running + momentum * batch", before + momentum * batch
    yield "the batch's statistic itself, not moved by momentum", batch
    yield "the running statistic was moved twice", expected + momentum * (batch - expected)


def _positions(case: Case, layer: str) -> int:
    """How many values of a channel the layer's statistics are taken over."""
    shapes = [row["shape"] for row in case.kept if (row["layer"], row["tensor"]) == (layer, "x_hat")]
    shape = shapes[0] if shapes else case.tensors["input.x"].shape
    return int(np.prod(shape)) // int(shape[1 if case.layout == "nchw" and len(shape) == 4 else -1])


def _moved(case: Case, name: str, expected: Array) -> Results:
    """Everything one place further along an axis or in memory, whatever comes in; or borders left at zero."""
    is_map = expected.ndim == 4 and not name.startswith("grad_param.")
    axes = ("N", *("CHW" if case.layout == "nchw" else "HWC")) if is_map else range(expected.ndim)
    for by in (1, -1):
        for axis, letter in enumerate(axes):
            if expected.shape[axis] > 1:
                what = f"shifted by one along {letter}" if is_map else "neighbour's weights: shifted by one"
                rolled = np.roll(expected, by, axis)
                yield what, rolled
                if is_map:
                    yield what, _first_cleared(rolled, axis, by)
        if expected.size > 1:
            yield "shifted by one in memory", np.roll(expected.reshape(-1), by).reshape(expected.shape)
    if is_map:
        for width in (1, 2, 3):
            if (inner := _inner(case, expected, width)).any():
                yield f"borders skipped: {width} on each side are zero", inner


def _first_cleared(rolled: Array, axis: int, by: int) -> Array:
    at = [slice(None)] * rolled.ndim
    at[axis] = slice(0, 1) if by > 0 else slice(-1, None)
    rolled = rolled.copy()
    rolled[tuple(at)] = 0
    return rolled


def _inner(case: Case, expected: Array, width: int) -> Array:
    inner = np.zeros_like(expected)
    middle = slice(width, -width)
    at = (slice(None), slice(None), middle, middle) if case.layout == "nchw" else (slice(None), middle, middle)
    inner[at] = expected[at]
    return inner


def _turned(name: str, expected: Array) -> Results:
    """The axes in another order, or the memory of another order read as this one."""
    weights = name.startswith("grad_param.")
    what = "weights transposed: their axes are in another order" if weights else "layout transposed"
    for axes in permutations(range(expected.ndim)):
        other = expected.transpose(axes)
        if axes != tuple(range(expected.ndim)):
            for turned in (other, other.reshape(expected.shape)):
                if turned.shape == expected.shape:
                    yield what, turned


# What depends on what came.


def of_got(case: Case, name: str, got: Array, expected: Array, within: Callable[[Array], bool]) -> str:
    """Mistakes that add something of the implementation's own; `within` says whether an array explains the result."""
    spread = got - expected
    if got.size > 2 and within(expected + spread.reshape(-1)[0]):
        return f"accumulated onto old contents: {spread.reshape(-1)[0]:.6g} more everywhere"
    for other, tensor in case.tensors.items():
        alike = tensor.shape == got.shape and tensor.dtype.kind == "f" and not other.startswith("tol.")
        if alike and other != name and within(expected + tensor):
            return f"accumulated onto old contents: those of {other}"
    return ""
