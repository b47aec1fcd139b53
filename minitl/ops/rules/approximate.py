"""Convolutions with more backward rules: the same forward, and less kept of their input.

    quantised8 4 2   codes of the input (`ops.rules.quantised`); gx exact, gW of the decoded input: unbiased
    razor            the larger half of the input (`ops.rules.razor`); gx exact, gW of that half
    channels         the input channels in the attribute `channels`: their weights' gradients exact, all others 0
    filter2 4 7      sums of the input over patches (`ops.rules.gradient_filter`); gx and gW approximate

`with_rules` takes a convolution, or a linear layer, that keeps `x` for its weight gradient, and gives the same
op with these rules besides its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.errors import ShapeError
from minitl.ops.op import EXACT, Attrs, Cost, Functions, Gradients, Needs, Op, keeps_array
from minitl.ops.rules import gradient_filter, quantised, razor
from minitl.ops.rules.gradient_filter import PATCH
from minitl.ops.rules.quantised import BITS
from minitl.saved import Kept, Saved

FOR = ("grad_weight",)
RAZOR, CHANNELS = "razor", "channels"
CODED = (*BITS, RAZOR, CHANNELS)
RULES = (*CODED, *PATCH)


def with_rules(op: Op) -> Op:
    """`op` with the rules above; a linear layer has no patches to filter."""
    rules = CODED if op.name == "linear" else RULES
    return replace(
        op,
        functions=Functions(op.functions.output_shape, partial(forward, op), partial(backward, op), partial(cost, op)),
        attrs=(*op.attrs, "seed", "channels"),
        rules=(EXACT, *rules),
        approximate=rules,
    )


def forward(op: Op, *arrays: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The op's output; keeps its input as the rule says, where the weight is trained."""
    own = _own(op, attrs)
    if rule == EXACT:
        return op.functions.forward(*arrays, attrs=own, needs=needs, rule=EXACT)
    y, saved = op.functions.forward(*arrays, attrs=own, needs=(False,) * len(needs), rule=EXACT)
    if needs[1]:
        if rule in BITS:
            quantised.keep(saved, arrays[0], BITS[rule], attrs.get("seed", (0,)), FOR)
        elif rule == RAZOR:
            razor.keep(saved, arrays[0], FOR)
        elif rule == CHANNELS:
            saved.keep("x", np.ascontiguousarray(arrays[0][..., _channels(op, arrays[0].shape, attrs)]), FOR)
        else:
            gradient_filter.keep(saved, arrays[0], y.shape, PATCH[rule], attrs.get("stride", 1))
    return y, saved


def backward(op: Op, saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """The op's gradients from what was kept of its input."""
    own = _own(op, attrs)
    if saved.rule in PATCH:
        gx, gw = gradient_filter.gradients(saved, gy, params[0], PATCH[saved.rule], attrs.get("stride", 1), needs)
        bias = (False, False, *needs[2:])
        return (gx, gw, *op.functions.backward(saved, gy, attrs=own, needs=bias, params=params)[2:])
    decoded = Saved()
    decoded.input_shape = saved.input_shape
    if needs[1]:
        decoded.keep("x", _decoded(saved, gy.dtype, attrs), FOR)
    return op.functions.backward(decoded, gy, attrs=own, needs=needs, params=params)


def cost(op: Op, shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The op's own, with what the rule keeps, and in passing a sample in float64 to encode and x to decode."""
    exact = op.cost(shapes, dtype, attrs=_own(op, attrs), needs=needs)
    if rule == EXACT:
        return exact
    x = shapes[0]
    if rule in PATCH:
        return gradient_filter.cost(exact, shapes, dtype, PATCH[rule], needs)
    if not needs[1]:
        return exact
    coded: tuple[Kept, ...]
    if rule == CHANNELS:
        coded = (keeps_array("x", (*x[:-1], len(_channels(op, x, attrs))), dtype, FOR),)
    else:
        coded = razor.kept(x, dtype, FOR) if rule == RAZOR else quantised.kept(x, BITS[rule], FOR)
    sample = nbytes(x[1:], "float64")
    return replace(
        exact,
        kept=coded,
        forward_workspace=max(exact.forward_workspace, 3 * sample),
        backward_workspace=nbytes(x, dtype) + max(exact.backward_workspace, 2 * sample),
    )


def _channels(op: Op, x: Shape, attrs: Attrs) -> list[int]:
    """The channels to keep; raises ShapeError unless there are some, in order, each once, all of x."""
    chosen = list(attrs.get("channels", ()))
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < x[-1]:
        expected = f"channels in rising order, from 0 to {x[-1] - 1}"
        raise ShapeError(op=op.name, expected=expected, got=f"{tuple(chosen)}")
    return chosen


def _decoded(saved: Saved, dtype: np.dtype[np.floating], attrs: Attrs) -> Array:
    if saved.rule == EXACT:
        return saved["x"]
    if saved.rule == CHANNELS:
        x = np.zeros(saved.input_shape, dtype)
        x[..., list(attrs["channels"])] = saved["x"]
        return x
    return quantised.read(saved, dtype) if "codes" in saved else razor.read(saved)


def _own(op: Op, attrs: Attrs) -> Attrs:
    return {name: value for name, value in attrs.items() if name in op.attrs}
