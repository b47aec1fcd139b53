"""Global average pool:  y[n, c] = sum over (h, w) of x[n, h, w, c] / (H W),  gx = gy / (H W) everywhere.

Nothing is kept: backward needs only the shape of x. `keepdims` gives y as (N, 1, 1, C), a map of
one position (inside squeeze-and-excite), else (N, C).
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.kernels import channels
from minitl.ops.expect import expect_map
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """(N, C), or (N, 1, 1, C) with `keepdims`, for x (N, H, W, C)."""
    expect_map("global_avg_pool", shapes[0])
    samples, _, _, c = shapes[0]
    return (samples, 1, 1, c) if attrs.get("keepdims") else (samples, c)


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """The mean over the positions of each sample, summed in float64; keeps nothing."""
    y = np.empty((len(x), x.shape[3]), x.dtype)
    channels.sample_means(x, y)
    return y.reshape(output_shape((x.shape,), attrs)), Saved()


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = gy / (H W) at every position."""
    samples, height, width, c = saved.input_shape
    gx = np.empty(saved.input_shape, gy.dtype)
    gx[:] = (gy / (height * width)).reshape(samples, 1, 1, c)
    return (gx,)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """An add for each value and a division for each mean forward; a division for each mean backward."""
    y = output_shape(shapes, attrs)
    return Cost(
        output=y,
        flops=Split(size(shapes[0]) + size(y), needs[0] * size(y)),
        forward_workspace=2 * nbytes(y, "float64"),  # the sums, and the means before they are rounded
        backward_workspace=nbytes(y, dtype),
    )


global_avg_pool = Op("global_avg_pool", ("x",), Functions(output_shape, forward, backward, cost), attrs=("keepdims",))
