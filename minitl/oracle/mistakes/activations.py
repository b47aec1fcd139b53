"""Mistakes in activations: another function, another slope, another value of the slope at a kink."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache, partial

import numpy as np

from minitl import ops
from minitl.arrays import Array
from minitl.kernels.rules import formula
from minitl.ops.op import EXACT
from minitl.oracle.bounds.activations import inside, kinks
from minitl.oracle.bounds.activations import slope as exact_slope
from minitl.oracle.case import Case
from minitl.oracle.mistakes.tape import Backward, Call, Change, Mistake
from minitl.oracle.recipes import ACTIVATIONS

SIGN = "x >= 0"
BOTH_SIDES = np.array([-9, -1, -1e-9, 0, 1e-9, 1, 9])
CONVS = ("conv", "depthwise_conv", "pointwise_conv", "grouped_conv", "standardised_conv", "linear")
NORMS = ("batch_norm", "frozen_norm", "group_norm")


def _clip(x: Array) -> Array:
    return np.clip(x, 0, 6)


# Values and slopes.
FUNCTIONS: dict[str, tuple[Change, Change]] = {op: (formula(op), partial(exact_slope, op)) for op in ACTIVATIONS}
USUAL_NAMES = {op: op for op in ACTIVATIONS} | {"silu": "swish"}
GATES: dict[str, tuple[Change, Change]] = {
    "sigmoid gate where a hard-sigmoid is right": FUNCTIONS["sigmoid"],
    "0.2 x + 0.5 gate, as Keras once had it: (x + 3) / 6 is right": (
        lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        lambda x: 0.2 * ((x > -2.5) & (x < 2.5)),
    ),
}
UNCLIPPED: dict[str, tuple[Change, Change]] = {
    "relu6": (lambda x: np.maximum(x, 0), lambda x: x > 0),
    "hard_swish": (lambda x: x * np.maximum(x + 3, 0) / 6, lambda x: np.where(x <= -3, 0, (2 * x + 3) / 6)),
    "hard_sigmoid": (lambda x: np.maximum(x + 3, 0) / 6, lambda x: np.where(x <= -3, 0, 1 / 6)),
}
SIXTHS = {"low precision: the constant 1/6 in float16": float(np.float16(1 / 6))} | {
    f"the constant {round(1 / 6, digits)} where 1/6 is right": round(1 / 6, digits) for digits in (3, 4, 5, 6)
}
HARD_SWISH_SLOPES: dict[str, Change] = {
    "hard-swish's product rule forgotten: the slope is not relu6(x + 3) / 6": lambda x: _clip(x + 3) / 6,
    "hard-swish's regions forgotten: the slope is (2 x + 3) / 6 between -3 and 3 only": lambda x: (2 * x + 3) / 6,
    "hard-swish's slope held between 0 and 1": lambda x: np.clip((2 * x + 3) / 6, 0, 1),
    "hard-swish's slope taken as rising everywhere: the bit for the side of -3/2 is not used": lambda x: np.where(
        inside(x), np.abs(2 * x + 3) / 6, x >= 3
    ),
}


def mistakes(activation: str, rule: str = "") -> Iterator[Mistake]:
    """All of them; `activation` is the block's, if any, and `rule` that of a single op's case."""
    for name, (value, slope) in GATES.items():
        yield other(name, ("hard_sigmoid",), value, slope)
    for op, (value, slope) in UNCLIPPED.items():
        yield other("the upper clip is missing", (op,), value, slope)
    text = "the sigmoid's slope forgotten: the slope is not the sigmoid itself"
    yield Mistake(text, ("silu", "sigmoid"), None, _sloped(FUNCTIONS["sigmoid"][0]))
    for cause, slope in HARD_SWISH_SLOPES.items():
        yield Mistake(cause, ("hard_swish",), None, _sloped(slope))
    for cause, sixth in SIXTHS.items():
        yield from _with_sixth(cause, sixth)
    for op in ACTIVATIONS:
        yield other("activation left out", (op,), lambda x: x, np.ones_like)
        yield Mistake("the gradient passed straight through", (op,), None, lambda c, gy: (gy,))
        yield from _swapped(op, rule)
        if _has_sign(op):
            yield from _masked(op, strict=False)
        yield from _rules(op)
        yield Mistake("flipped mask bits", (op,), None, lambda c, gy: (gy * (c.x < 0),))
    yield from _left_in(activation)


def _with_sixth(cause: str, sixth: float) -> Iterator[Mistake]:
    """Another number for 1/6, in the function and in the exact slope that is made of it."""

    def backward(c: Call, gy: Array) -> Sequence[Array | None]:
        slope = np.where(inside(c.x), (2 * c.x + 3) * sixth, c.x >= 3)
        return (gy * slope,) if c.rule == EXACT else c.backward(gy)

    yield Mistake(cause, ("hard_swish",), lambda c: c.x * _clip(c.x + 3) * sixth, backward)
    yield other(cause, ("hard_sigmoid",), lambda x: _clip(x + 3) * sixth, lambda x: inside(x) * sixth)


def other(cause: str, of: tuple[str, ...], value: Change, slope: Change) -> Mistake:
    """Another function and its slope in place of the activation."""
    return Mistake(cause, of, lambda c: value(c.x), _sloped(slope))


def _sloped(slope: Change) -> Backward:
    return lambda c, gy: (gy * slope(c.x),)


def _swapped(op: str, rule: str) -> Iterator[Mistake]:
    """One activation in place of another; relu's slope alone, where the sign rule is asked for, is a strict mask."""
    for name, (value, slope) in FUNCTIONS.items():
        if name == "relu" != op and rule == "sign":
            yield Mistake(f"relu where {op} is right", (op,), lambda c: np.maximum(c.x, 0))
        elif name != op and (op, name) != ("hard_sigmoid", "sigmoid"):  # which is told as a gate
            yield other(f"{USUAL_NAMES[name]} where {op} is right", (op,), value, slope)


def _rules(op: str) -> Iterator[Mistake]:
    for rule in getattr(ops, op).rules:
        yield Mistake(f"the gradient of rule {rule}", (op,), None, partial(Call.backward, rule=rule))


def mask_cause(wrong: str, right: str) -> str:
    """One of the masks where another is right."""
    return f"the mask is {wrong} where {right} is right"


@cache
def by_sign(op: str, rule: str) -> bool:
    """Whether the mask x >= 0 is the rule's slope."""
    return np.array_equal(_slopes(op, rule, BOTH_SIDES), BOTH_SIDES >= 0)


def _has_sign(op: str) -> bool:
    """Whether one of the activation's rules is that."""
    return any(by_sign(op, rule) for rule in getattr(ops, op).rules)


def _slopes(op: str, rule: str, x: Array) -> Array:
    call = Call(getattr(ops, op), "", (x.reshape(1, 1, 1, -1),), {}, (True,), rule)
    return call.input_gradient(np.ones((1, 1, 1, x.size))).ravel()


def masks(op: str) -> dict[str, Change]:
    """What may be taken for the mask of an activation, by its formula: a border at any kink; or the sign of y.

    Away from kinks a strict border and the other give the same bits; that of the activation itself stands first,
    and the kinks of other activations, whose masks are copied at times, last.
    """
    borders = {">=": np.greater_equal, ">": np.greater}
    order = sorted(borders, reverse=_has_sign(op))

    def at(places: Iterable[float]) -> dict[str, Change]:
        return {f"x {b} {kink:g}": partial(_beyond, borders[b], kink) for kink in sorted(places) for b in order}

    own, every = _borders(op), {kink for one in ACTIVATIONS for kink in _borders(one)}
    return at(own) | {"y >= 0": lambda x: FUNCTIONS[op][0](x) >= 0} | at(every - own)  # -0.0 is >= 0


def _borders(op: str) -> set[float]:
    """Every kink that an activation has by some rule, but those of slopes in a few bits."""
    return {kink for rule in getattr(ops, op).rules if not rule.startswith("few") for kink in kinks(op, rule)}


def _beyond(border: Callable[[Array, float], Array], kink: float, x: Array) -> Array:
    return border(x, kink)


def _masked(op: str, *, strict: bool) -> Iterator[Mistake]:
    """Other masks where the sign rule's is right; strict ones differ at kinks only."""
    for text, mask in masks(op).items():
        if (">=" not in text) == strict and text != SIGN:
            yield Mistake(mask_cause(text, SIGN), (op,), None, _of_mask(mask))


def _of_mask(mask: Change) -> Backward:
    return lambda c, gy: (gy * mask(c.x),) if by_sign(c.op.name, c.rule) else c.backward(gy)


def left_in(name: str) -> str:
    """What is said of an activation where there is none."""
    return f"activation left in: {USUAL_NAMES[name]} after it, where there is none"


def _left_in(activation: str) -> Iterator[Mistake]:
    """An activation after an op that is followed by none."""
    for name, (value, slope) in FUNCTIONS.items():
        if activation not in ("", name):
            continue

        def forward(c: Call, value: Change = value) -> Array:
            return value(c.forward())

        def backward(c: Call, gy: Array, slope: Change = slope) -> tuple[Array | None, ...]:
            return c.backward(gy * slope(c.forward()))

        layer = "project_norm" if activation else None
        yield Mistake(left_in(name), (*CONVS, *NORMS), forward, backward, layer=layer)


def at_kinks(case: Case) -> Iterator[Mistake]:
    """Other values of the slope where a single op's case hits a kink."""
    for kink in kinks(case.op, case.rule):
        values = {0.0, 1 / 6, 0.5, 1.0, *_beside(case.op, case.rule, kink)}
        for text, value in {_fraction(value): value for value in sorted(values)}.items():
            cause = f"slope {text} at the kink {kink:g}"
            yield Mistake(cause, (case.op,), None, _with_kink(kink, value))
    if case.op in ("hard_swish", "hard_sigmoid"):
        cause = "the slope of the middle region at the kinks too"
        yield Mistake(cause, (case.op,), None, _middle_everywhere)
    yield from _masked(case.op, strict=True)


def _beside(op: str, rule: str, kink: float) -> list[float]:
    """The rule's slope just below and just above a kink: what it is at the kink if that is counted to that side."""
    x = np.nextafter(kink, [-np.inf, np.inf])
    return [float(slope) for slope in _slopes(op, rule, x)]


def _fraction(value: float) -> str:
    """`1/6`, where it is a simple one."""
    near = Fraction(value).limit_denominator(9)
    return str(near) if abs(near - value) < 1e-9 else f"{value:.3g}"


def _middle_everywhere(c: Call, gy: Array) -> tuple[Array]:
    slope = (2 * c.x + 3) / 6 if c.op.name == "hard_swish" else 1 / 6
    return (np.where(np.abs(c.x) == 3, slope * gy, c.input_gradient(gy)),)


def _with_kink(kink: float, value: float) -> Backward:
    return lambda c, gy: (np.where(c.x == kink, value * gy, c.input_gradient(gy)),)
