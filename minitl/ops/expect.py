"""The shapes that ops take: what does not fit raises ShapeError, which names op, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

from minitl.arrays import Shape, is_count
from minitl.checks import as_number
from minitl.errors import ShapeError, ValueRangeError, brief
from minitl.ops.op import Attrs, Shapes


def expect_values(op: str, shape: Shape) -> Shape:
    """The shape, or ShapeError unless it is a non-empty (..., C)."""
    if not shape or 0 in shape:
        raise ShapeError(op=op, expected="an array (..., C) with no empty axis", got=f"shape {shape}")
    return shape


def expect_same(op: str, shapes: Shapes) -> Shape:
    """The shape of two inputs, which may be numbers, (); ShapeError unless it is one (there is no broadcasting).

    No axis may be empty.
    """
    a, b = shapes
    if a != b or 0 in a:
        expected = "two arrays of one shape with no empty axis"
        raise ShapeError(op=op, expected=expected, got=f"{a} and {b}")
    return a


def expect_factors(op: str, name: str, shapes: Shapes) -> Shape:
    """The shape of a map (N, H, W, C), or ShapeError unless the input beside it, `name`, is (N, 1, 1, C)."""
    x, factors = shapes
    expect_map(op, x)
    if factors != (x[0], 1, 1, x[3]):
        raise ShapeError(op=op, expected=f"{name} ({x[0]}, 1, 1, {x[3]}) for x {x}", got=f"{name} {factors}")
    return x


def expect_map(op: str, shape: Shape) -> None:
    """Raise ShapeError unless `shape` is a non-empty (N, H, W, C)."""
    if len(shape) != 4:
        remedy = "arrays are channels last (NHWC)"
        raise ShapeError(op=op, expected="a map (N, H, W, C)", got=f"shape {shape}", remedy=remedy)
    if 0 in shape:
        raise ShapeError(op=op, expected="a map (N, H, W, C) with no empty axis", got=f"shape {shape}")


def expect_norm(op: str, names: Sequence[str], shapes: Shapes) -> Shape:
    """The shape of a map (N, H, W, C), or ShapeError unless all inputs beside it, of these names, are (C,)."""
    x, *vectors = shapes
    expect_map(op, x)
    expect_vectors(op, x[3], **dict(zip(names, vectors, strict=True)))
    return x


def expect_vectors(op: str, channels: int, **shapes: Shape) -> None:
    """Raise ShapeError unless every named shape is (channels,)."""
    for name, shape in shapes.items():
        if shape != (channels,):
            raise ShapeError(op=op, expected=f"{name} of shape ({channels},)", got=f"{shape}")


def expect_groups(op: str, attrs: Attrs, *channels: int) -> int:
    """The attribute `groups`, 1 by default; ShapeError unless it is a count that divides all these channels."""
    groups: int = attrs.get("groups", 1)
    if not is_count(groups, 1) or any(count % groups for count in channels):
        expected = f"groups that divide {' and '.join(map(str, channels))} channels"
        raise ShapeError(op=op, expected=expected, got=f"groups={brief(groups)}")
    return groups


def expect_numbers(op: str, attrs: Attrs, **most: float) -> None:
    """ValueRangeError unless each of these attributes, where it is given, is a number from 0 to the one named here."""
    for name, largest in most.items():
        number = as_number(attrs.get(name, 0))
        if number is None or not 0 <= number <= largest:
            expected = f"{name} to be a finite number from 0 to {largest:g}"
            raise ValueRangeError(op=op, expected=expected, got=brief(attrs[name]))
