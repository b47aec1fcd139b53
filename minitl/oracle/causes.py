"""The likely cause of a wrong result: compute what a usual mistake would give, and see whether it is what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from minitl import ops
from minitl.arrays import Array, Shape, positions
from minitl.bits import pack, unpack
from minitl.ops.op import Attrs, Op
from minitl.oracle.bounds import kinks
from minitl.oracle.case import Case, from_layout
from minitl.oracle.make import recipe_of
from minitl.oracle.recipes import ACTIVATIONS, METHODS, Recipe, run
from minitl.saved import Saved
from minitl.tape import Tape

EXPLAINS = 0.02  # a mistake explains a result that is this much nearer to it than to the truth


def missing(case: Case, name: str) -> str:
    """Why a required tensor may not be there."""
    if name == "grad_input.x":
        return "the gradient must also be passed on below the block"
    if name.startswith("buffer_after."):
        return "batch statistics move the running ones"
    return "a missing gradient: the parameter is trained" if name.startswith("grad_param.") else ""


def of_shape(case: Case, got: Shape, expected: Shape) -> str:
    """What a wrong shape suggests."""
    if sorted(got) == sorted(expected) and len(got) == 4:
        return f"the axes are in another order; this case is {case.layout}"
    if int(np.prod(got)) == int(np.prod(expected)):
        return "as many elements in another shape; weights are (out, in / groups, k, k)"
    return "padding must be (k - 1) / 2 on all sides" if len(got) == 4 and len(expected) == 4 else ""


def of_values(case: Case, name: str, got: Array, expected: Array) -> str:
    """The first usual mistake that gives these values, or nothing."""
    for cause, mistake in _mistakes(case, name, got, expected):
        if mistake.shape == expected.shape and _explains(mistake, got, expected):
            return cause
    return ""


def _explains(mistake: Array, got: Array, expected: Array) -> bool:
    return bool(np.abs(got - mistake).max() <= EXPLAINS * np.abs(got - expected).max())


def _mistakes(case: Case, name: str, got: Array, expected: Array) -> Iterator[tuple[str, Array]]:
    yield "a missing gradient: it is zero" if "grad" in name else "all zero", np.zeros_like(expected)
    yield "layout transposed" if expected.ndim == 4 else "transposed", _transposed(got, expected)
    yield from _factors(case, name, expected)
    if name.startswith("buffer_after."):
        yield from _running(case, name, expected)
    if name == "grad_input.x":
        yield from _residual(case, expected)
    try:
        yield from _variants(case, name)
    except Exception:  # whatever attributes in somebody's own case.json lead to: a guess is not worth failing for
        return


def _transposed(got: Array, expected: Array) -> Array:
    """The truth with its axes in another order, if that is nearer to what came than the truth itself."""
    best = expected
    for axes in permutations(range(expected.ndim)):
        for other in (expected.transpose(axes), expected.transpose(axes).reshape(expected.shape)):
            if other.shape == expected.shape and np.abs(got - other).max() < np.abs(got - best).max():
                best = other
    return best if best is not expected else np.full(expected.shape, np.inf)


def _factors(case: Case, name: str, expected: Array) -> Iterator[tuple[str, Array]]:
    batch = case.attrs.get("batch", 1)
    gradient = "grad" in name
    yield ("a doubled gradient" if gradient else "doubled"), 2 * expected
    yield "the sign is wrong", -expected
    if gradient:
        yield "a mean over the batch instead of a sum", expected / batch
        yield "half the gradient", expected / 2
        yield "a sum over the batch instead of a mean", expected * batch
        outputs = case.tensors["output"]
        yield "a mean over all positions instead of a sum", expected * outputs.shape[-1] / max(outputs.size, 1)


def _running(case: Case, name: str, expected: Array) -> Iterator[tuple[str, Array]]:
    """Mistakes in moving a running statistic."""
    layer, _, kind = name.removeprefix("buffer_after.").rpartition(".")
    before = case.tensors[f"buffer.{name.removeprefix('buffer_after.')}"].astype(np.float64)
    momentum = case.conventions.get("momentum") or 0.1
    batch = (expected - before) / momentum + before
    if kind == "running_var":
        shape = case.tensors["input.x" if layer in ("", "expand_norm") else "output"].shape
        m = int(np.prod(shape)) // shape[1 if case.layout == "nchw" and len(shape) == 4 else -1]
        biased = batch * (m - 1) / m
        yield "biased running variance: divide by M - 1", before + momentum * (biased - before)
    yield "the running statistic was not moved", before
    yield "momentum is the weight of the new value, not of the old", momentum * before + (1 - momentum) * batch
    yield "the batch's statistic itself, not moved by momentum", batch


def _residual(case: Case, expected: Array) -> Iterator[tuple[str, Array]]:
    gy = case.tensors["grad_output"].astype(np.float64)
    if case.op == "irb" and gy.shape == expected.shape:
        yield "the residual's gradient is missing", expected - gy
        yield "the residual's gradient is there twice", expected + gy


# Whole wrong runs.


class _WrongTape(Tape):
    """A tape that makes one mistake in the forward."""

    def __init__(self, mistake: str) -> None:
        super().__init__(portable=True)
        self.mistake = mistake

    def _fresh(self) -> Tape:
        return _WrongTape(self.mistake)

    def _forward(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> tuple[Array, Saved]:
        if self.mistake.startswith("padding") and op.name in ("conv", "depthwise_conv"):
            more = 1 if self.mistake == "padding + 1" else -1
            y, saved = super()._forward(op, (_on_canvas(arrays[0], more), *arrays[1:]), attrs, needs, rule)
            return _off_canvas(y, arrays[0], attrs.get("stride", 1)), saved
        if self.mistake == "batch statistics" and op.name == "frozen_norm":
            arrays = (arrays[0], *arrays[1:3], *_statistics(arrays[0]))
        if self.mistake == "frozen statistics" and op.name == "batch_norm":
            _, saved = super()._forward(op, [arrays[0], *(a.copy() for a in arrays[1:])], attrs, needs, rule)
            return _normalised(arrays, attrs.get("eps", 1e-5)), saved
        y, saved = super()._forward(op, arrays, attrs, needs, rule)
        if self.mistake == "clip" and op.name in ("relu6", "hard_swish", "hard_sigmoid"):
            x = arrays[0]
            return {"relu6": np.maximum(x, 0), "hard_swish": x * np.maximum(x + 3, 0) / 6}.get(
                op.name, np.maximum(x + 3, 0) / 6
            ), saved
        if self.mistake == "no residual" and op.name == "add":
            return arrays[0] + 0.0, saved
        return y, saved


def _on_canvas(x: Array, more: int) -> Array:
    """x amid two rows and columns of zeros, moved as it would be by `more` rows and columns of padding."""
    out = np.zeros((x.shape[0], x.shape[1] + 4, x.shape[2] + 4, x.shape[3]))
    out[:, 2 + more : 2 + more + x.shape[1], 2 + more : 2 + more + x.shape[2]] = x
    return out


def _off_canvas(y: Array, x: Array, stride: int) -> Array:
    """The part of the output that belongs to x."""
    first, (rows, columns) = 2 // stride, (-(-extent // stride) for extent in x.shape[1:3])
    return y[:, first : first + rows, first : first + columns].copy()


def _statistics(x: Array) -> tuple[Array, Array]:
    rows = x.reshape(-1, x.shape[-1])
    return rows.mean(axis=0), rows.var(axis=0)


def _normalised(arrays: Sequence[Array], eps: float) -> Array:
    x, gamma, beta, mean, var = arrays
    return np.asarray(gamma * (x - mean) / np.sqrt(var + eps) + beta)


MISTAKES = {
    "padding + 1": "padding off by one: one row and column too many before",
    "padding - 1": "padding off by one: one row and column too few before",
    "batch statistics": "batch statistics where they are frozen",
    "frozen statistics": "frozen statistics where they are the batch's",
    "clip": "the upper clip is missing",
    "no residual": "the residual is missing",
}

UNCLIPPED: dict[str, Callable[[Array], Array]] = {  # slopes
    "relu6": lambda x: x > 0,
    "hard_swish": lambda x: np.where(x <= -3, 0, (2 * x + 3) / 6),
    "hard_sigmoid": lambda x: np.where(x <= -3, 0, 1 / 6),
}


def _variants(case: Case, name: str) -> Iterator[tuple[str, Array]]:
    """What whole steps with one mistake give for this tensor; gradients only where the mistake is one of backward."""
    values = {
        n: from_layout(np.asarray(t, t.dtype if t.dtype.kind != "f" else np.float64), case.layout)
        if n.startswith("input.")
        else t.astype(np.float64)
        for n, t in case.tensors.items()
        if n.startswith(("input.", "param.", "buffer."))
    }
    recipe = recipe_of(case)
    if name == "output":
        for mistake, cause in MISTAKES.items():
            yield cause, _laid_out(case, run(recipe, values, _WrongTape(mistake)).output.value)
    if name == "grad_input.x" and case.op in ACTIVATIONS:
        yield from _slopes(case, recipe, values, case.tensors[name])
    if name.startswith("grad_") and case.op == "irb":
        gy = from_layout(case.tensors["grad_output"].astype(np.float64), case.layout)
        for method in METHODS:
            if method != case.method:
                tape = Tape(portable=True)
                ran = run(replace(recipe, method=method), values, tape)
                gradients = {f"grad_param.{n}": g for n, g in tape.backward(ran.output, gy.copy()).items()}
                gradients["grad_input.x"] = next(iter(tape.input_gradients.values()))
                if name in gradients:
                    yield f"the gradient of method {method}", _laid_out(case, gradients[name], name)


def _slopes(case: Case, r: Recipe, values: dict[str, Array], expected: Array) -> Iterator[tuple[str, Array]]:
    """What other rules of an activation, and other slopes at its kinks, give."""
    gy, x = case.tensors["grad_output"].astype(np.float64), case.tensors["input.x"]
    yield "the gradient passed straight through", gy
    for rule in getattr(ops, r.op).rules:
        tape = Tape(portable=True)
        ran = run(replace(r, attrs={**r.attrs, "rule": rule}), values, tape)
        tape.backward(ran.output, from_layout(gy, case.layout).copy(order="C"))
        yield f"the gradient of rule {rule}", _laid_out(case, next(iter(tape.input_gradients.values())))
    yield "flipped mask bits", gy - expected
    if r.op in UNCLIPPED:
        yield "the upper clip is missing in the backward", gy * UNCLIPPED[r.op](x)
    for kink in kinks(r.op, r.rule):
        for slope in (0.0, 1 / 6, 1.0):
            yield f"slope {slope:.3g} at the kink {kink:g}", np.where(x == kink, slope * gy, expected)


def _laid_out(case: Case, array: Array, name: str = "output") -> Array:
    maps = case.layout == "nchw" and array.ndim == 4 and not name.startswith("grad_param.")
    return array.transpose(0, 3, 1, 2) if maps else array


# Codes.


def of_codes(case: Case, name: str, got: Array, expected: Array) -> str:
    """What is wrong with packed codes."""
    row = case.row(name)
    shape = tuple(row["shape"])
    if case.layout == "nchw" and len(shape) == 4:
        shape = tuple(shape[i] for i in (0, 2, 3, 1))
    codes, bits = unpack(expected, row["bits"], shape), row["bits"]
    flipped = pack(((1 << bits) - 1 - codes).astype(np.uint8), bits)
    if (got == flipped).all():
        return "flipped mask bits"
    if (got == _reversed(expected)).all():
        return "bit order big-endian: the first position is the lowest bit"
    if (got == pack(np.ascontiguousarray(codes.reshape(-1, shape[-1])[::-1]), bits)).all():
        return "positions in the opposite order"
    wrong = unpack(got, bits, shape) != codes
    tail = positions(shape) * bits % 8
    if not wrong.any() and tail:
        return "the unused high bits of the last bytes must be 0"
    flat = np.packbits(codes.reshape(-1), bitorder="little") if bits == 1 else np.zeros(0, np.uint8)
    if flat.size and flat.size <= got.size and (got.reshape(-1)[: flat.size] == flat).all():
        return "packed along the channels: the positions of one channel share a byte"
    return (
        f"{int(wrong.sum())} of {wrong.size} codes wrong, the first at (n, h, w, c) = {np.argwhere(wrong)[0].tolist()}"
    )


def _reversed(packed: Array) -> Array:
    bits = np.unpackbits(packed.reshape(-1), bitorder="little").reshape(-1, 8)
    return np.packbits(bits, axis=1, bitorder="big").reshape(packed.shape)
