"""Gradient filtering: a convolution's gradients from means over patches of r x r (Yang, Li & Marculescu, CVPR 2023).

arXiv:2301.00330. The output's gradient gy is replaced by its mean gm over each patch; patches are centred
on the map, and cut off at its border. Of x only its sums xs over the same patches are kept, (r s)^2
positions each at stride s. With ws the sum of the weights over their k x k taps,

    gx = ws^T gm / s^2 at every position of the patch        gW = gm^T xs / s^2, the same for every tap

(dividing by s^2 is ours: it gives both the sums over a patch that a constant gradient would have). Both are
approximate; for a 1x1 convolution with gy constant on its patches both are exact. The bias gradient is
exact always.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from minitl.arrays import Array, Shape, nbytes, positions, size
from minitl.kernels import channels
from minitl.ops.convolutions.linear import pointwise_conv
from minitl.ops.convolutions.products import saved_input
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import Cost, Needs, Shapes, Split, beyond, keeps_array
from minitl.saved import Saved

PATCH = {f"filter{r}": r for r in (2, 4, 7)}


def sums_shape(x: Shape, y: Shape, r: int) -> Shape:
    """Shape of the kept sums: one per patch of the output and channel of the input."""
    return (x[0], -(-y[1] // r), -(-y[2] // r), x[3])


def cost(exact: Cost, shapes: Shapes, dtype: str, r: int, needs: Needs) -> Cost:
    """An exact convolution's cost, with the sums kept and, for each gradient, a product per patch instead of position.

    To that come the sums over patches of x and of gy, and for gx those of the weight over its taps.
    """
    x, weight, y = shapes[0], shapes[1], exact.output
    products = positions(sums_shape(y, y, r)) * size(weight[:2])
    means, of_bias = size(y), exact.flops.grad_weight - 2 * exact.macs.grad_weight
    sums = keeps_array("x_sums", sums_shape(x, y, r), dtype, GRAD_WEIGHT)
    return replace(
        exact,
        kept=(sums,) * needs[1],
        macs=Split(exact.macs.forward, needs[0] * products, needs[1] * products),
        flops=Split(
            exact.flops.forward + needs[1] * size(x),
            needs[0] * (2 * products + means + size(weight)),
            needs[1] * (2 * products + (not needs[0]) * means) + of_bias,
        ),
        forward_workspace=beyond(needs[1] * sums.nbytes, exact.forward_workspace),
        backward_workspace=_backward_workspace(x, weight, y, dtype, r, needs),
    )


def _backward_workspace(x: Shape, weight: Shape, y: Shape, dtype: str, r: int, needs: Needs) -> int:
    """The means, and first the products with them, then gx and gW; the sums of a bias come last."""
    gb = any(needs[2:]) * nbytes(y[-1:], dtype)
    if not any(needs[:2]):
        return beyond(gb, channels.sums_workspace(y))
    sums, taps, means = sums_shape(x, y, r), (*weight[:2], 1, 1), nbytes(sums_shape(y, y, r), dtype)
    gx, gw = needs[0] * nbytes(x, dtype), needs[1] * nbytes(weight, dtype)
    below, of_weight = needs[0] * nbytes(sums, dtype), needs[1] * nbytes(taps, dtype)
    products = below + needs[1] * means
    if x[3] == weight[1]:
        products = below + of_weight + pointwise_conv.cost((sums, taps), dtype, needs=needs[:2]).backward_workspace
    return beyond(
        gx + gw + gb,
        means + nbytes(taps, dtype) + products,
        means + below + of_weight + gx,
        means + of_weight + gx + gw,
        any(needs[2:]) * (gx + gw + channels.sums_workspace(y)),
    )


def keep(saved: Saved, x: Array, y: Shape, r: int, stride: int) -> None:
    """Keep the sums of x over its patches."""
    sums = np.empty(sums_shape(x.shape, y, r), x.dtype)
    for (i, j), rows, columns in _patches(y, r, stride, x.shape):
        x[:, rows, columns].sum(axis=(1, 2), out=sums[:, i, j])
    saved.keep("x_sums", sums, GRAD_WEIGHT)


def gradients(
    saved: Saved, gy: Array, weight: Array, r: int, stride: int, needs: Needs
) -> tuple[Array | None, Array | None]:
    """gx and gW: those that `needs` asks for."""
    if not any(needs[:2]):
        return None, None
    means = np.empty(sums_shape(gy.shape, gy.shape, r), gy.dtype)
    for (i, j), rows, columns in _patches(gy.shape, r, 1, gy.shape):
        gy[:, rows, columns].mean(axis=(1, 2), out=means[:, i, j])
    means /= stride * stride
    below, of_weight = _products(saved, means, weight, needs)
    gx = None
    if below is not None:
        gx = np.zeros(saved.input_shape, gy.dtype)
        for (i, j), rows, columns in _patches(gy.shape, r, stride, gx.shape):
            gx[:, rows, columns] = below[:, i : i + 1, j : j + 1]
    del below
    gw = None if of_weight is None else np.broadcast_to(of_weight, weight.shape).copy()
    return gx, gw


def _products(saved: Saved, means: Array, weight: Array, needs: Needs) -> tuple[Array | None, Array | None]:
    """ws^T gm, and gm^T xs of shape (O, C, 1, 1): of a 1x1 convolution on the patches, or channel by channel."""
    taps = np.empty((*weight.shape[:2], 1, 1), weight.dtype)
    weight.sum(axis=(2, 3), keepdims=True, out=taps)
    if saved.input_shape[3] == weight.shape[1]:
        part = saved_input((*means.shape[:3], weight.shape[1]), saved["x_sums"] if needs[1] else None)
        gx, gw = pointwise_conv.backward(part, means, needs=(needs[0], needs[1]), params=(taps,))
        return gx, gw
    gx = means * taps[:, 0, 0, 0] if needs[0] else None
    gw = (means * saved["x_sums"]).sum(axis=(0, 1, 2))[:, None, None, None] if needs[1] else None
    return gx, gw


def _patches(y: Shape, r: int, stride: int, x: Shape) -> Iterator[tuple[tuple[int, int], slice, slice]]:
    """Each patch of a map y: its place among them, and its rows and columns in a map x `stride` times as large."""
    rows, columns = (_lines(y[axis], r, stride, x[axis]) for axis in (1, 2))
    return (((i, j), a, b) for i, a in enumerate(rows) for j, b in enumerate(columns))


def _lines(target: int, r: int, stride: int, source: int) -> list[slice]:
    """Patches along one axis, centred on it and cut off at its ends."""
    count = -(-target // r)
    before = (count * r - target) // 2
    return [
        slice(max(p * r - before, 0) * stride, source if p == count - 1 else ((p + 1) * r - before) * stride)
        for p in range(count)
    ]
