"""The geometry that k x k convolutions share: odd kernels, stride 1 or 2, padding (k - 1) / 2 or as given."""

from __future__ import annotations

from minitl.arrays import Shape, is_count
from minitl.errors import ShapeError, ValueRangeError, brief
from minitl.kernels.window import Window
from minitl.ops.expect import expect_map, expect_vectors
from minitl.ops.op import Attrs, Shapes


def conv_shape(op: str, shapes: Shapes, attrs: Attrs, *, depthwise: bool = False) -> Shape:
    """Output shape (N, Ho, Wo, O) for x (N, H, W, C), w (O, C, k, k); Ho = (H + above + below - k) // s + 1.

    That is ceil(H / s) with the default padding. Where it is `depthwise`, w is (C, 1, k, k). Raises
    ShapeError for any other shapes and ValueRangeError for a stride that is not 1 or 2, or a padding
    that is not four numbers from 0 to k - 1.
    """
    x, w, *bias = shapes
    expect_map(op, x)
    inputs = 1 if depthwise else x[3]
    if len(w) != 4 or w[1] != inputs or w[2] != w[3] or w[2] % 2 == 0 or 0 in w:
        raise ShapeError(op=op, expected=f"weight (O, {inputs}, k, k) with k odd, for x {x}", got=f"weight {w}")
    if depthwise and w[0] != x[3]:
        expected = f"one filter per channel: weight ({x[3]}, 1, k, k), for x {x}"
        raise ShapeError(op=op, expected=expected, got=f"weight {w}")
    stride = attrs.get("stride", 1)
    if not is_count(stride, 1) or stride > 2:
        raise ValueRangeError(op=op, expected="stride 1 or 2", got=f"stride {brief(stride)}")
    if bias:
        expect_vectors(op, w[0], bias=bias[0])
    above, below, left, right = padding_of(op, w[2], attrs)
    height, width = x[1] + above + below - w[2], x[2] + left + right - w[2]
    if height < 0 or width < 0:
        raise ShapeError(op=op, expected=f"a padded map of at least {w[2]} x {w[2]}", got=f"x {x}")
    return (x[0], height // stride + 1, width // stride + 1, w[0])


def padding_of(op: str, k: int, attrs: Attrs) -> tuple[int, int, int, int]:
    """The padding in force: above, below, left, right."""
    padding = attrs.get("padding")
    if padding is None:
        return (k // 2,) * 4
    four = isinstance(padding, tuple) and len(padding) == 4
    if not four or not all(is_count(p, 0) and p < k for p in padding):
        expected = f"padding (above, below, left, right), each from 0 to {k - 1}"
        raise ValueRangeError(op=op, expected=expected, got=brief(padding))
    return tuple(padding)


def window(op: str, x: Shape, y: Shape, k: int, attrs: Attrs) -> Window:
    """Where the taps fall."""
    above, _, left, _ = padding_of(op, k, attrs)
    return Window(k, attrs.get("stride", 1), above, left, *x[1:3], *y[1:3])
