"""Convolutions with more backward rules: the same forward, and less kept of their input.

    quantised8 4 2   codes of the input (`ops.quantised`); gx exact, gW of the decoded input: unbiased
    razor            the larger half of the input (`ops.razor`); gx exact, gW of that half
    filter2 4 7      sums of the input over patches (`ops.gradient_filter`); gx and gW approximate

`with_rules` takes a convolution, or a linear layer, that keeps `x` for its weight gradient, and gives the same
op with these rules besides its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.ops import gradient_filter, quantised, razor
from minitl.ops.gradient_filter import PATCH
from minitl.ops.op import EXACT, Attrs, Cost, Gradients, Kept, Needs, Op
from minitl.ops.quantised import BITS
from minitl.saved import Saved

FOR = ("grad_weight",)
RAZOR = "razor"
CODED = (*BITS, RAZOR)
RULES = (*CODED, *PATCH)


def with_rules(op: Op) -> Op:
    """`op` with the rules above; a linear layer has no patches to filter."""
    rules = CODED if op.name == "linear" else RULES
    return replace(
        op,
        compute=partial(forward, op),
        differentiate=partial(backward, op),
        account=partial(cost, op),
        attrs=(*op.attrs, "seed"),
        rules=(EXACT, *rules),
        approximate=rules,
    )


def forward(op: Op, *arrays: Array, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The op's output; keeps its input as the rule says, where the weight is trained."""
    own = _own(op, attrs)
    if rule == EXACT:
        return op.compute(*arrays, attrs=own, needs=needs, rule=EXACT)
    y, saved = op.compute(*arrays, attrs=own, needs=(False,) * len(needs), rule=EXACT)
    if needs[1]:
        if rule in BITS:
            quantised.keep(saved, arrays[0], BITS[rule], attrs.get("seed", (0,)), FOR)
        elif rule == RAZOR:
            razor.keep(saved, arrays[0], FOR)
        else:
            gradient_filter.keep(saved, arrays[0], y.shape, PATCH[rule], attrs.get("stride", 1))
    return y, saved


def backward(op: Op, saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """The op's gradients from what was kept of its input."""
    own = _own(op, attrs)
    if saved.rule in PATCH:
        gx, gw = gradient_filter.gradients(saved, gy, params[0], PATCH[saved.rule], attrs.get("stride", 1), needs)
        bias = (False, False, *needs[2:])
        return (gx, gw, *op.differentiate(saved, gy, attrs=own, needs=bias, params=params)[2:])
    decoded = Saved()
    decoded.input_shape = saved.input_shape
    if needs[1]:
        decoded.keep("x", _decoded(saved, gy.dtype), FOR)
    return op.differentiate(decoded, gy, attrs=own, needs=needs, params=params)


def cost(op: Op, shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The op's own, with what the rule keeps, and in passing a sample in float64 to encode and x to decode.

    A filter's work is counted as the exact one's, of which it does a part.
    """
    exact = op.cost(shapes, dtype, attrs=_own(op, attrs), needs=needs)
    if rule == EXACT:
        return exact
    x = shapes[0]
    if rule in PATCH:
        kept = gradient_filter.kept(x, exact.output, dtype, PATCH[rule]) if needs[1] else ()
        return replace(exact, kept=kept)
    if not needs[1]:
        return exact
    coded: tuple[Kept, ...] = razor.kept(x, dtype, FOR) if rule == RAZOR else quantised.kept(x, BITS[rule], FOR)
    sample = nbytes(x[1:], "float64")
    return replace(
        exact,
        kept=coded,
        forward_workspace=max(exact.forward_workspace, 3 * sample),
        backward_workspace=nbytes(x, dtype) + max(exact.backward_workspace, 2 * sample),
    )


def _decoded(saved: Saved, dtype: np.dtype[np.floating]) -> Array:
    if "x" in saved:
        return saved["x"]
    return quantised.read(saved, dtype) if "codes" in saved else razor.read(saved)


def _own(op: Op, attrs: Attrs) -> Attrs:
    return {name: value for name, value in attrs.items() if name in op.attrs}
