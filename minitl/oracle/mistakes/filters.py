"""Mistakes in grouped, standardised and filtered convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from minitl import ops
from minitl.arrays import Array
from minitl.ops.convolutions.standardised_conv import EPS
from minitl.ops.op import EXACT, Gradients
from minitl.ops.rules.gradient_filter import PATCH
from minitl.oracle.mistakes.formats import FORMATS
from minitl.oracle.mistakes.sums import SAME, Map, around
from minitl.oracle.mistakes.tape import Backward, Call, Change, Mistake

STANDARDISED, GROUPED = ("standardised_conv",), ("grouped_conv", "standardised_conv")


def mistakes() -> Iterator[Mistake]:
    """All of them."""
    text = "channels of the groups interleaved: a group's channels follow one another"
    yield around(text, GROUPED, lambda c: (_interleaved(c), SAME, SAME))
    for which, group in (("first", 0), ("last", -1)):
        yield around(f"the {which} group left out", GROUPED, partial(_without_group, group))
    yield from _standardised()
    yield from _filtered()


def _interleaved(c: Call) -> Map:
    groups, channels = c.attrs.get("groups", 1), c.x.shape[3]
    order = np.arange(channels).reshape(channels // groups, groups).T.reshape(-1)
    back = np.argsort(order)
    return Map(lambda x: x[..., order], lambda g: g[..., back])


def _without_group(group: int, c: Call) -> tuple[Map, Map, Map]:
    """Neither its outputs, nor the gradients that come from them."""
    groups, filters = c.attrs.get("groups", 1), len(c.arrays[1])
    if groups == 1:
        raise LookupError("there is no other")
    there = np.ones((groups, filters // groups))
    there[group] = 0
    return SAME, SAME, Map(lambda y: y * there.reshape(-1), lambda g: g * there.reshape(-1))


# Standardised filters: another w' and, given gw', another gw.

Filters = Callable[[Array], tuple[Array, Array]]  # of rows of weights: w', and 1 / d to multiply a gradient by


def _standardised() -> Iterator[Mistake]:
    for cause, filters in {
        "weight standardisation left out": lambda w: (w, np.ones((len(w), 1))),
        "filters centred only: not divided by their deviation": lambda w: (_centred(w), np.ones((len(w), 1))),
        "filters not centred": lambda w: (w / _deviation(w), 1 / _deviation(w)),
        "deviation of the filters biased: divide by n - 1": lambda w: _by(w, _deviation(w, biased=True)),
        "eps inside the square root": lambda w: _by(w, np.sqrt((_deviation(w) - EPS) ** 2 + EPS)),
    }.items():
        yield Mistake(cause, STANDARDISED, partial(_forward, filters), partial(_backward, filters))
    for name, rounded in FORMATS.items():
        yield Mistake(
            f"low precision: operands in {name}", STANDARDISED,
            partial(_rounded_forward, rounded), partial(_rounded_backward, rounded),
        )  # fmt: skip
    for constants, centred in (
        ("mean and deviation taken as constants", False),
        ("deviation taken as a constant", True),
    ):
        backward = partial(_backward, lambda w: _by(w, _deviation(w)), centred=centred)
        yield Mistake(f"the filters' {constants} in backward", STANDARDISED, None, backward)


def _centred(w: Array) -> Array:
    return np.asarray(w - w.mean(axis=1, keepdims=True))


def _deviation(w: Array, *, biased: bool = False) -> Array:
    v = _centred(w)
    return np.asarray(np.sqrt((v * v).sum(axis=1, keepdims=True) / (w.shape[1] - (not biased))) + EPS)


def _by(w: Array, d: Array) -> tuple[Array, Array]:
    return _centred(w) / d, 1 / d


def _forward(filters: Filters, c: Call) -> Array:
    weight = c.arrays[1]
    w, _ = filters(weight.reshape(len(weight), -1))
    return ops.grouped_conv.forward(c.x, w.reshape(weight.shape), attrs=c.attrs, needs=(False, False))[0]


def _rounded(rounded: Change, w: Array) -> tuple[Array, Array]:
    standard, factor = _by(w, _deviation(w))
    return rounded(standard), factor


def _rounded_forward(rounded: Change, c: Call) -> Array:
    """With x and the standardised filters rounded."""
    return _forward(partial(_rounded, rounded), replace(c, arrays=(rounded(c.x), *c.arrays[1:])))


def _rounded_backward(rounded: Change, c: Call, gy: Array) -> Sequence[Array | None]:
    """The same, with gy rounded; what leads from the filters' gradient to the weights' is exact."""
    gx, _ = _backward(partial(_rounded, rounded), c, rounded(gy))
    return gx, c.backward(rounded(gy), rounded(c.x), c.arrays[1])[1]


def _backward(filters: Filters, c: Call, gy: Array, *, centred: bool = False) -> Sequence[Array | None]:
    weight = c.arrays[1]
    w, factor = filters(weight.reshape(len(weight), -1))
    w = w.reshape(weight.shape)
    _, saved = ops.grouped_conv.forward(c.x, w, attrs=c.attrs, needs=c.needs)
    gx, gw = ops.grouped_conv.backward(saved, gy, attrs=c.attrs, needs=c.needs, params=(w,))
    if gw is None:
        return gx, None
    rows = gw.reshape(len(gw), -1) * factor
    return gx, (_centred(rows) if centred else rows).reshape(gw.shape)


# Gradient filtering: the exact gradient, other patches, other factors.


def _filtered() -> Iterator[Mistake]:
    of = ("conv", "pointwise_conv")
    causes: dict[str, Backward] = {
        "the exact gradient: not filtered": partial(Call.backward, rule=EXACT),
        **{f"patches of {r} x {r}: another size is right": partial(_other_rule, rule) for rule, r in PATCH.items()},
        "patches begin at the map's first row and column: they are centred on it": partial(_by_patches, centred=False),
        "gradient filtering not divided by the stride squared": partial(_by_patches, divided=False),
        "sums of gy over a patch where means are right": partial(_by_patches, means=False),
        "gradient filtering averages the weights' taps where it should sum": partial(_by_patches, averaged=True),
    }
    for cause, backward in causes.items():
        yield Mistake(cause, of, None, _only_filtered(backward))


def _other_rule(rule: str, c: Call, gy: Array) -> Gradients:
    if rule == c.rule:
        raise LookupError("that is the right rule")
    return c.backward(gy, rule=rule)


def _only_filtered(backward: Backward) -> Backward:
    def only(c: Call, gy: Array) -> Sequence[Array | None]:
        if c.rule not in PATCH:
            raise LookupError("nothing is filtered")
        return backward(c, gy)

    return only


def _by_patches(
    c: Call, gy: Array, *, centred: bool = True, divided: bool = True, means: bool = True, averaged: bool = False
) -> tuple[Array, Array]:
    weight, stride, r = c.arrays[1], c.attrs.get("stride", 1), PATCH[c.rule]
    down, across = (_patches(n, r, centred=centred) for n in gy.shape[1:3])
    above, beside = (np.repeat(p, stride, 1)[:, :n] for p, n in zip((down, across), c.x.shape[1:3], strict=True))
    m = np.einsum("nhwo,ph,qw->npqo", gy, down, across) / (stride**2 if divided else 1)
    if means:
        m = m / np.outer(down.sum(1), across.sum(1))[None, :, :, None]
    taps = weight.mean((2, 3)) if averaged else weight.sum((2, 3))
    gx = np.einsum("npqo,oc,ph,qw->nhwc", m, taps, above, beside)
    gw = np.einsum("npqo,nhwc,ph,qw->oc", m, c.x, above, beside)
    return gx, np.broadcast_to(gw[:, :, None, None], weight.shape)


def _patches(size: int, r: int, *, centred: bool) -> Array:
    """One row per patch of a line: 1 where it lies."""
    count = -(-size // r)
    of = (np.arange(size) + (count * r - size) // 2 * centred) // r
    return np.asarray(of[None] == np.arange(count)[:, None], np.float64)
