"""A convolution's kept input in the span of a few vectors per axis: a Tucker form with bases that live between steps.

    S = x *_h B_h *_w B_w *_c B_c        x ~ S *_h B_h^T *_w B_w^T *_c B_c^T

where `*_m` multiplies along axis m. B_m (K, D) has orthonormal rows, one basis each for height, width and channels;
kept is the core S, (N, Kh, Kw, Kc) in place of (N, H, W, C). gx is exact, gW that of the restored x: exact where every
K is D. The rules differ in what becomes of the bases:

    subspace         one step of subspace iteration in every forward, B_m = qr(A_m A_m^T B_m^T)^T with A_m the
                     input unfolded along the axis (ASI: Nguyen et al., ICML 2025, arXiv:2505.05086)
    subspace_fixed   they stay as they were made beforehand (as LANCE's, ECCV 2026, arXiv:2509.21617)

Unlike ASI, the axis of the samples is left whole: a basis for it would belong to the samples of another step. And x is
restored before gW is computed; the same numbers, for a map more in passing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from minitl.arrays import Array, Shape, itemsize, nbytes, size
from minitl.errors import ShapeError, ValueRangeError
from minitl.kernels import pointwise
from minitl.ops.convolutions.conv import conv
from minitl.ops.convolutions.depthwise_conv import depthwise_conv
from minitl.ops.convolutions.linear import pointwise_conv
from minitl.ops.convolutions.products import saved_input
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, beyond, keeps_array
from minitl.ops.room import Room, made, room_bytes
from minitl.saved import Saved

FOLLOWS, FIXED = RULES = ("subspace", "subspace_fixed")
BASES = ("basis_h", "basis_w", "basis_c")
AXES = (3, 1, 2)  # in the order they are encoded: that of the channels makes the map small first
SPATIAL, CHANNELS = 2, 8  # by default a rank is this part of its axis


def shapes_of(x: Shape, ranks: Sequence[int] = ()) -> tuple[Shape, ...]:
    """Shapes (K, D) of the bases of an input x; by default half the height and width, and an eighth of the channels.

    Raises ValueRangeError for `ranks` (height, width, channels) that are not from 1 to the sides of x.
    """
    sides = x[1:]
    if not ranks:
        ranks = tuple(-(-side // part) for side, part in zip(sides, (SPATIAL, SPATIAL, CHANNELS), strict=True))
    if len(ranks) != len(sides) or not all(1 <= rank <= side for rank, side in zip(ranks, sides, strict=True)):
        expected = f"ranks (height, width, channels) from (1, 1, 1) to {sides}"
        raise ValueRangeError(expected=expected, got=f"{tuple(ranks)}")
    return tuple(zip(ranks, sides, strict=True))


def output_shape(op: Op, shapes: Shapes, attrs: Attrs) -> Shape:
    """The convolution's; the bases must be those of x."""
    x, weight, *bases = shapes
    y = op.output_shape((x, weight), attrs)
    for name, basis, side in zip(BASES, bases, x[1:], strict=True):
        if len(basis) != 2 or basis[1] != side or not 1 <= basis[0] <= side:
            raise ShapeError(op=op.name, expected=f"{name} (K, {side}) with K from 1 to {side}", got=f"{basis}")
    return y


def forward(
    op: Op, x: Array, weight: Array, *bases: Array, attrs: Attrs, needs: Needs, rule: str
) -> tuple[Array, Saved]:
    """The convolution's output; keeps the core, and with `subspace` moves the bases towards those of this x."""
    y, saved = op.forward(x, weight, attrs=attrs, needs=(False, False))
    if needs[1]:
        for axis, basis in enumerate(bases, start=1):
            if rule == FOLLOWS:
                follow(x, axis, basis)
        saved.keep("core", _along_all(x, AXES, bases), GRAD_WEIGHT)
    return y, saved


def backward(op: Op, saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx, and gW of the restored input; none for the bases."""
    weight, *bases = params
    x = _along_all(saved["core"], AXES[::-1], [basis.T for basis in bases]) if needs[1] else None
    restored = saved_input(saved.input_shape, x)
    return (*op.backward(restored, gy, attrs=attrs, needs=needs[:2], params=(weight,)), None, None, None)


def cost(op: Op, shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The convolution's, the products with the bases and, where they move, 4 D K^2 operations for each qr."""
    x, weight, *bases = shapes
    exact = op.cost((x, weight), dtype, attrs=attrs, needs=needs[:2])
    if not needs[1]:
        return exact
    maps = [x]
    for axis in AXES:
        maps.append((*maps[-1][:axis], bases[axis - 1][0], *maps[-1][axis + 1 :]))
    encode = sum(2 * size(a) * bases[axis - 1][0] for a, axis in zip(maps, AXES, strict=False))
    moving = bases if rule == FOLLOWS else ()
    moves = sum(4 * size(x) * k + 4 * d * k * k for k, d in moving)
    held = [nbytes(a, dtype) for a in maps]
    steps = list(zip(AXES, maps, maps[1:], strict=False))
    encoding = [_along_bytes(a, b, axis, dtype, restores=False) for axis, a, b in steps]
    restoring = [_along_bytes(b, a, axis, dtype, restores=True) for axis, a, b in steps]
    turns = [_follow_bytes(x, axis, b, dtype) for axis, b in enumerate(moving, start=1)]
    left = needs[0] * held[0] + nbytes(weight, dtype)
    return replace(
        exact,
        kept=(keeps_array("core", maps[-1], dtype, GRAD_WEIGHT),),
        flops=exact.flops + Split(forward=encode + moves, grad_weight=encode),
        forward_workspace=beyond(
            held[3], exact.forward_workspace, *turns, encoding[0], held[1] + encoding[1], held[2] + encoding[2]
        ),
        backward_workspace=beyond(
            left, restoring[2], held[2] + restoring[1], held[1] + restoring[0],
            held[0] + left + exact.backward_workspace,
        ),
    )  # fmt: skip


def _along_all(x: Array, axes: Sequence[int], matrices: Sequence[Array]) -> Array:
    for axis in axes:
        x = along(x, axis, matrices[axis - 1])
    return x


def along(x: Array, axis: int, matrix: Array) -> Array:
    """x with `matrix` (K, D) applied along an axis of D."""
    y = np.empty((*x.shape[:axis], len(matrix), *x.shape[axis + 1 :]), x.dtype)
    if axis == x.ndim - 1:
        pointwise.forward(x, np.ascontiguousarray(matrix), None, y)
        return y
    columns = np.ascontiguousarray(matrix.T)
    for part, out in zip(_unfolded(x, axis), _unfolded(y, axis), strict=True):
        pointwise.grad_weight(part, columns, out)
    return y


def follow(x: Array, axis: int, basis: Array) -> None:
    """Move a basis (K, D) by one step of subspace iteration, unless x is not finite (which is refused elsewhere)."""
    columns = _correlated(x, axis, basis)
    if np.isfinite(columns).all():
        basis[...] = orthonormal(columns).T


def _correlated(x: Array, axis: int, basis: Array) -> Array:
    """A A^T B^T (D, K)."""
    spread = along(x, axis, basis)
    columns = np.zeros(basis.shape[::-1], x.dtype)
    if axis == x.ndim - 1:
        pointwise.grad_weight(spread, x, columns)
        return columns
    part_sum = np.empty_like(columns)
    for part, rows in zip(_unfolded(x, axis), _unfolded(spread, axis), strict=True):
        pointwise.forward(part, rows, None, part_sum)
        columns += part_sum
    return columns


def orthonormal(columns: Array) -> Array:
    """Q of columns (D, K) = Q R by Householder reflections: orthonormal also where columns depend on each other."""
    a, q, products, v = made(_reflecting_room(columns.shape))
    a[...] = columns
    for k in range(a.shape[1]):
        mine = v[k:]
        mine[...] = a[k:, k]
        mine[0] += np.copysign(_length(mine, products), mine[0])
        mine /= max(_length(mine, products), np.finfo(np.float64).tiny)
        _reflect(mine, a[k:, k:], products)
        a[k:, k] = mine  # where nothing is read any more
    q[...] = 0
    np.fill_diagonal(q, 1)
    for k in reversed(range(a.shape[1])):
        _reflect(a[k:, k], q[k:, k:], products)
    return q


def _reflecting_room(columns: Shape) -> Room:
    """Columns and, below their diagonal, reflectors; Q; products with a reflector; the reflector."""
    return [(columns, "float64"), (columns, "float64"), ((size(columns),), "float64"), ((columns[0],), "float64")]


def _length(v: Array, room: Array) -> np.floating:
    length: np.floating = np.sqrt(np.multiply(v, v, out=room[: v.size]).sum())
    return length


def _reflect(v: Array, a: Array, room: Array) -> None:
    """a -= 2 v v^T a."""
    products = room[: a.size].reshape(a.shape)
    twice = 2 * np.multiply(v[:, None], a, out=products).sum(axis=0)
    a -= np.multiply(v[:, None], twice, out=products)


def _unfolded(x: Array, axis: int) -> Array:
    """x as (before, D, after)."""
    return x.reshape(size(x.shape[:axis]), x.shape[axis], -1)


def _along_bytes(x: Shape, y: Shape, axis: int, dtype: str, *, restores: bool) -> int:
    """Bytes that `along` holds at most, y included; `restores` with a basis (K, D) transposed."""
    last = axis == len(x) - 1
    copied = x[axis] * y[axis] * itemsize(dtype) * (last == restores)
    if last:
        passing = pointwise.product_workspace(size(x[:-1]), (y[-1], x[-1]), dtype, True)
    else:
        passing = pointwise.grad_weight_workspace((x[axis], size(x[axis + 1 :])), y[axis], dtype)
    return nbytes(y, dtype) + copied + passing


def _follow_bytes(x: Shape, axis: int, basis: Shape, dtype: str) -> int:
    """Bytes that `follow` holds at most."""
    (k, d), spread = basis, (*x[:axis], basis[0], *x[axis + 1 :])
    columns = nbytes(basis, dtype)
    if axis == len(x) - 1:
        passing = pointwise.grad_weight_workspace(spread, d, dtype)
    else:
        passing = columns + pointwise.product_workspace(d, (k, size(x[axis + 1 :])), dtype, True)
    return max(
        _along_bytes(x, spread, axis, dtype, restores=False),
        nbytes(spread, dtype) + columns + passing,
        columns + room_bytes(_reflecting_room((d, k))),
    )


def _in_subspace(op: Op) -> Op:
    return Op(
        op.name,
        ("x", "weight", *BASES),
        Functions(partial(output_shape, op), partial(forward, op), partial(backward, op), partial(cost, op)),
        attrs=op.attrs,
        rules=RULES,
        approximate=RULES,
        never=BASES,
        updates=BASES,
    )


IN_SUBSPACE = {op.name: _in_subspace(op) for op in (conv, depthwise_conv, pointwise_conv)}
