"""Convolutions with more backward rules: the same forward, and less kept of their input.

    quantised8 4 2   codes of the input (`ops.rules.quantised`); gx exact, gW of the decoded input: unbiased
    razor            the larger half of the input (`ops.rules.razor`); gx exact, gW of that half
    channels         some input channels (`ops.rules.channels`): their weights' gradients exact, all others 0
    filter2 4 7      sums of the input over patches (`ops.rules.gradient_filter`); gx and gW approximate

`with_rules` takes a convolution, or a linear layer, that keeps `x` for its weight gradient, and gives the same
op with these rules besides its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from minitl.arrays import Array, nbytes
from minitl.ops.convolutions.products import grad_bias, saved_input
from minitl.ops.op import EXACT, Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, beyond
from minitl.ops.room import gradient_bytes, room_bytes
from minitl.ops.rules import channels, gradient_filter, quantised, razor
from minitl.ops.rules.channels import expect_channels
from minitl.ops.rules.gradient_filter import PATCH
from minitl.saved import Saved

ENCODINGS = {**quantised.ENCODINGS, **razor.ENCODINGS}
CHANNELS = "channels"
CODED = (*ENCODINGS, CHANNELS)
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
    own = op.own(attrs)
    if rule == EXACT:
        return op.forward(*arrays, attrs=own, needs=needs)
    y, saved = op.forward(*arrays, attrs=own, needs=(False,) * len(needs))
    x = arrays[0]
    if not needs[1]:
        return y, saved
    if rule in ENCODINGS:
        ENCODINGS[rule].keep(saved, x, attrs.get("seed", (0,)))
    elif rule == CHANNELS:
        channels.keep(saved, x, expect_channels(op, x.shape, attrs))
    else:
        gradient_filter.keep(saved, x, y.shape, PATCH[rule], attrs.get("stride", 1))
    return y, saved


def backward(op: Op, saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """The op's gradients from what was kept of its input."""
    if saved.rule in PATCH:
        gx, gw = gradient_filter.gradients(saved, gy, params[0], PATCH[saved.rule], attrs.get("stride", 1), needs)
        return (gx, gw, grad_bias(gy, needs))[: len(needs)]
    own = op.own(attrs)
    if saved.rule == CHANNELS and needs[1]:
        return channels.gradients(op, saved, gy, attrs=own, needs=needs, params=params, channels=attrs["channels"])
    if needs[1]:
        saved = saved_input(saved.input_shape, decoded(saved, gy.dtype))
    return op.backward(saved, gy, attrs=own, needs=needs, params=params)


def decoded(saved: Saved, dtype: np.dtype[np.floating]) -> Array:
    """x, as what was kept of it says."""
    return ENCODINGS[saved.rule].restore(saved, dtype) if saved.rule in ENCODINGS else saved["x"]


def cost(op: Op, shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The op's own, with what the rule keeps; in passing what encoding and restoring take, and x restored."""
    own = op.own(attrs)
    exact = op.cost(shapes, dtype, attrs=own, needs=needs)
    if rule == EXACT or not (needs[1] or rule in PATCH):
        return exact
    if rule in PATCH:
        return gradient_filter.cost(exact, shapes, dtype, PATCH[rule], needs)
    x = shapes[0]
    if rule == CHANNELS:
        some = expect_channels(op, x, attrs)
        return channels.cost(op, shapes, dtype, attrs=own, needs=needs, channels=some)
    encoding = ENCODINGS[rule]
    kept, restored, left = encoding.kept(x, dtype), nbytes(x, dtype), gradient_bytes(shapes, dtype, needs)
    held = sum(k.nbytes for k in kept)
    encodes, restores = (room_bytes(room(x, dtype)) for room in (encoding.encoding_room, encoding.decoding_room))
    return replace(
        exact,
        kept=kept,
        forward_workspace=beyond(held, exact.forward_workspace, held + encodes),
        backward_workspace=beyond(left, restored + restores, restored + left + exact.backward_workspace),
    )
