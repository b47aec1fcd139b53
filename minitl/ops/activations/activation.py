"""What all activations share: an op made of a formula and its backward rules, given as data in the activation's file.

    y = value(x),   gx = gy slope, the slope by the rule:

    Codes        the number of x's interval, 1 to 4 bits per element, and a level for each
    FromInput    x itself
    FromOutput   y itself, free of charge where the next op keeps it too, and perhaps a bit

What a rule keeps, what backward reads and what the ledger says all follow from that data. The same
formula is run by NumPy and compiled into the kernels (`kernels.formula`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from minitl.arrays import Array, Shape, dtype_name, size
from minitl.bits import packed_shape
from minitl.kernels import elementwise
from minitl.kernels.elementwise import Down, Up
from minitl.kernels.formula import Formula
from minitl.kernels.rules import Codes, FromInput, FromOutput, Rule, codes_of, register
from minitl.kernels.tasks import NOTHING
from minitl.ops.expect import expect_values
from minitl.ops.kept import GRAD_INPUT
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, keeps_codes, keeps_input
from minitl.saved import OUTPUT, Kept, Saved

ACTIVATIONS: dict[str, Op] = {}  # all there are, by name


def activation(
    name: str, value: Formula, rules: Mapping[str, Rule], *, flops: int, approximate: Sequence[str] = ()
) -> Op:
    """The op of that name; the first rule is the default, `flops` are those of the value per element.

    This makes it known everywhere: to layers, network tables, methods, the fused path and accounting.
    """
    register(name, value, dict(rules))
    ACTIVATIONS[name] = Op(
        name,
        ("x",),
        Functions(
            partial(output_shape, name),
            partial(forward, name, rules),
            partial(backward, name),
            partial(cost, rules, flops),
        ),
        rules=tuple(rules),
        approximate=tuple(approximate),
        elementwise=dict(rules),
    )
    return ACTIVATIONS[name]


def tensor_of(codes: Codes) -> str:
    """The name of kept codes in the ledger."""
    return codes.tensor or ("mask" if codes.bits == 1 else "codes")


def kept_for_slope(saved: Saved) -> tuple[Array, Array]:
    """The input or output that a rule kept, and its codes; NOTHING where it kept none."""
    kept = next((saved[name] for name in ("x", "y") if name in saved), NOTHING)
    return kept, next((saved[name] for name in ("mask", "codes") if name in saved), NOTHING)


def keeps_for_slope(rule: Rule | None, x: Shape, dtype: str) -> tuple[Kept, ...]:
    """What a rule keeps for its slope, of a map of that shape: its codes, and x or y as it is."""
    kept = [keeps_codes(tensor_of(codes), x, codes.bits)] if (codes := codes_of(rule)) else []
    if isinstance(rule, FromInput):
        kept.append(keeps_input("x", 0, x, dtype, GRAD_INPUT))
    if isinstance(rule, FromOutput):
        kept.append(keeps_input("y", OUTPUT, x, dtype, GRAD_INPUT))
    return tuple(kept)


def output_shape(name: str, shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (..., C)."""
    return expect_values(name, shapes[0])


def forward(
    name: str, rules: Mapping[str, Rule], x: Array, *, attrs: Attrs, needs: Needs, rule: str
) -> tuple[Array, Saved]:
    """y = value(x); keeps what the rule's slope is made of, where gx is wanted."""
    saved, y, known = Saved(), np.empty_like(x), rules[rule] if needs[0] else None
    codes = codes_of(known)
    packed = np.empty(packed_shape(x.shape, codes.bits), np.uint8) if codes else NOTHING
    elementwise.up(x, y, Up(name=name, rule=rule if codes else "", packed=packed))  # x and y the kernel need not copy
    for kept in keeps_for_slope(known, x.shape, dtype_name(x.dtype)):
        array = x if kept.source == 0 else y if kept.source == OUTPUT else packed
        saved.keep(kept.tensor, array, kept.needed_for, codes=(kept.shape, kept.bits))
    return y, saved


def backward(name: str, saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = gy times the slope."""
    gx, (kept, packed) = np.empty_like(gy), kept_for_slope(saved)
    elementwise.down(gy, gx, Down(name=name, rule=saved.rule, kept=kept, packed=packed))
    return (gx,)


def cost(
    rules: Mapping[str, Rule], flops: int, shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str
) -> Cost:
    """The value's operations forward, the rule's backward."""
    x, n, known = shapes[0], size(shapes[0]), rules[rule]
    kept = keeps_for_slope(known, x, dtype) if needs[0] else ()
    return Cost(output=x, kept=kept, flops=Split(flops * n, needs[0] * known.flops * n))
