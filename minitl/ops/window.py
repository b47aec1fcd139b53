"""The geometry that k x k convolutions share: odd kernels, padding (k - 1) / 2, stride 1 or 2."""

from __future__ import annotations

from collections.abc import Sequence

from minitl.arrays import Shape
from minitl.errors import ShapeError, ValueRangeError
from minitl.ops.op import Attrs, expect_map, expect_vectors


def conv_shape(op: str, shapes: Sequence[Shape], attrs: Attrs, groups_of: int | None) -> Shape:
    """Output shape (N, ceil(H / s), ceil(W / s), O) for x (N, H, W, C) and w (O, C / groups, k, k).

    `groups_of` is how many input channels each filter reads (None: all of them). Raises
    ShapeError for any other shapes and ValueRangeError for a stride that is not 1 or 2.
    """
    x, w, *bias = shapes
    expect_map(op, x)
    inputs = groups_of or x[3]
    if len(w) != 4 or w[1] != inputs or w[2] != w[3] or w[2] % 2 == 0 or 0 in w:
        raise ShapeError(op=op, expected=f"weight (O, {inputs}, k, k) with k odd, for x {x}", got=f"weight {w}")
    if groups_of == 1 and w[0] != x[3]:
        raise ShapeError(
            op=op, expected=f"one filter a channel: weight ({x[3]}, 1, k, k), for x {x}", got=f"weight {w}"
        )
    stride = attrs.get("stride", 1)
    if stride not in (1, 2):
        raise ValueRangeError(op=op, expected="stride 1 or 2", got=f"stride {stride}")
    if bias:
        expect_vectors(op, w[0], bias=bias[0])
    return (x[0], -(-x[1] // stride), -(-x[2] // stride), w[0])
