"""Group norm (Wu & He 2018, arXiv:1803.08494): statistics of each sample over groups of channels.

For sample n and group g of C / G channels, with mean and biased variance over its m = H W C / G values,

    x_hat = (x - mean) inv_std      inv_std = 1 / sqrt(var + eps)      y = weight x_hat + bias

    gx = inv_std (a - mean(a) - x_hat mean(a x_hat))      with a = gy weight, means over the group
    gweight = sum of gy x_hat      gbias = sum of gy      over samples and positions

Kept: x_hat for gx and gweight, inv_std (N, G) for gx. No running statistics.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.errors import ShapeError
from minitl.ops.expect import expect_groups, expect_norm, expect_numbers
from minitl.ops.kept import keeps, save
from minitl.ops.norms.batch_norm import uses
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (N, H, W, C); the attribute `groups` must divide C, and a group have at least two values."""
    x = expect_norm("group_norm", ("weight", "bias"), shapes)
    expect_numbers("group_norm", attrs, eps=np.inf)
    if size(x[1:]) // expect_groups("group_norm", attrs, x[3]) < 2:
        raise ShapeError(op="group_norm", expected="at least two values per group and sample", got=f"one: shape {x}")
    return x


def forward(x: Array, weight: Array, bias: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """Normalise each sample's groups, sums in float64; keeps x_hat and inv_std as needed."""
    groups, eps = attrs.get("groups", 1), attrs.get("eps", 1e-5)
    x_hat, inv_std = np.empty_like(x), np.empty((len(x), groups), x.dtype)
    for image, normal, scale in zip(x, x_hat, inv_std, strict=True):
        np.subtract(image, _spread(_means(image, groups), image).astype(x.dtype), out=normal)
        scale[:] = 1 / np.sqrt(_means(normal * normal, groups) + eps)
        normal *= _spread(scale, image)
    y = x_hat * weight
    y += bias
    return y, save(uses(needs), x_hat, inv_std)


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx, gweight and gbias: those that `needs` asks for."""
    groups, c = attrs.get("groups", 1), gy.shape[3]
    gx = np.empty_like(gy) if needs[0] else None
    gweight = np.zeros(c) if needs[1] else None
    gbias = np.zeros(c) if needs[2] else None
    for n, slopes in enumerate(gy):
        if gx is not None:
            _grad_input(slopes * params[0], saved["x_hat"][n], saved["inv_std"][n], groups, gx[n])
        if gweight is not None:
            gweight += (slopes * saved["x_hat"][n]).sum(axis=(0, 1), dtype=np.float64)
        if gbias is not None:
            gbias += slopes.sum(axis=(0, 1), dtype=np.float64)
    return gx, *(None if g is None else g.astype(gy.dtype) for g in (gweight, gbias))


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """7 operations per value forward; backward 1 for gbias, 2 for gweight, 8 for gx; in passing a sample's map."""
    x, n = shapes[0], size(shapes[0])
    kept = keeps(uses(needs), (x, (x[0], attrs.get("groups", 1))), dtype, inputs=False)
    return Cost(
        output=x,
        kept=kept,
        flops=Split(7 * n, needs[0] * 8 * n, (2 * needs[1] + needs[2]) * n),
        forward_workspace=0 if kept else nbytes(x, dtype),  # x_hat is made either way; then a sample's squares fit in y
        backward_workspace=(needs[0] or needs[1]) * nbytes(x[1:], dtype),
    )


def _grad_input(a: Array, x_hat: Array, inv_std: Array, groups: int, gx: Array) -> None:
    """gx of one sample, from a = gy weight."""
    np.multiply(a, x_hat, out=gx)
    along, level = _means(gx, groups), _means(a, groups)
    np.multiply(x_hat, _spread(along, gx).astype(gx.dtype), out=gx)
    a -= _spread(level, gx).astype(gx.dtype)
    np.subtract(a, gx, out=gx)
    gx *= _spread(inv_std, gx)


def _means(image: Array, groups: int) -> Array:
    """The mean of each group of channels of a map (H, W, C), summed position by position in float64."""
    sums = image.sum(axis=(0, 1), dtype=np.float64)
    means: Array = sums.reshape(groups, -1).sum(axis=1) * (groups / image.size)
    return means


def _spread(values: Array, image: Array) -> Array:
    """One number per group, as one per channel."""
    return np.repeat(values, image.shape[2] // len(values))


group_norm = Op(
    "group_norm", ("x", "weight", "bias"), Functions(output_shape, forward, backward, cost), attrs=("groups", "eps")
)
