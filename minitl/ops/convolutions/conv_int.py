"""A grouped convolution computed in integers: 8-bit operands, 32-bit sums, forward and backward.

    x ~ sx X,  W ~ sw V     with X, V in [-127, 127], s = max |.| / 127, rounded to nearest
    y  = sx sw conv(X, V)
    gx = sg sw conv^T(G, V),  gW = sg sx corr(G, X)     with gy ~ sg G, rounded at random, without bias

The products of a sample have exact sums below 2^31, and gW adds them up in 64 bits; the rules differ in how
they are computed (see `integers`). Kept for gW: X, 1 byte per value, and sx. This scheme is minitl's own: the
quantiser of INT8 Rep-Net in memory (Zhang et al. 2024, DOI 10.1109/TCAD.2024.3371268) is not public.
Gradients are approximate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, itemsize, nbytes, size
from minitl.ops.convolutions.grouped_conv import grouped_conv, groups_of
from minitl.ops.convolutions.integers import RULES, product, product_room, quantise, rounding_room
from minitl.ops.convolutions.products import FOR
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, beyond
from minitl.ops.room import room_bytes
from minitl.saved import Kept, Saved


def forward(x: Array, weight: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y in integers, scaled; keeps the codes of x when the weight is trained."""
    (codes, sx), (filters, sw) = quantise(x), quantise(weight)
    y = np.empty(grouped_conv.output_shape((x.shape, weight.shape), attrs), x.dtype)
    for into, out in groups_of(x.shape[3], len(weight), attrs):
        rows = _rows(filters[out])
        for sample, result in zip(codes[..., into], y[..., out], strict=True):
            sums = product(_columns(sample, weight.shape[2], attrs.get("stride", 1)), rows, rule)
            _scaled(sums.reshape(result.shape), sx * sw, result)
            del sums
    saved = Saved()
    if needs[1]:
        saved.keep("codes", codes, FOR)
        saved.keep("scale", np.full(1, sx, x.dtype), FOR)
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx and gW in integers, scaled: those that `needs` asks for."""
    if not any(needs):
        return None, None
    (weight,), kernel, stride = params, params[0].shape[2], attrs.get("stride", 1)
    slopes, sg = quantise(gy, np.random.default_rng(attrs.get("seed", (0,))))
    filters, sw = quantise(weight)
    gx = np.empty(saved.input_shape, gy.dtype) if needs[0] else None
    gw = np.empty(weight.shape, gy.dtype) if needs[1] else None
    for into, out in groups_of(saved.input_shape[3], len(weight), attrs):
        rows = _rows(filters[out])
        total = np.zeros(rows.shape, np.int64)
        for n in range(len(gy)):
            g = slopes[n, ..., out].reshape(-1, out.stop - out.start)
            if gx is not None:
                sums = _scattered(product(g, rows.T, saved.rule), gx[n, ..., into].shape, kernel, stride)
                _scaled(sums, sg * sw, gx[n, ..., into])
                del sums
            if gw is not None:
                total += product(g.T, _columns(saved["codes"][n, ..., into], kernel, stride).T, saved.rule)
        if gw is not None:
            _scaled(_filters(total, gw[out].shape), sg * float(saved["scale"][0]), gw[out])
        del total
    return gx, gw


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The multiply-adds of the grouped convolution; in passing codes, and of a sample patches, sums and products."""
    x, w = shapes
    exact = grouped_conv.cost(shapes, dtype, attrs=grouped_conv.own(attrs), needs=needs)
    kept = (
        Kept("codes", x, "int8", 8, size(x), FOR),
        Kept("scale", (1,), dtype, 8 * itemsize(dtype), nbytes((1,), dtype), FOR),
    )
    return Cost(
        output=exact.output,
        kept=kept if needs[1] else (),
        macs=exact.macs,
        flops=exact.flops,
        forward_workspace=_forward_workspace(x, w, exact.output, dtype, attrs, needs, rule),
        backward_workspace=_backward_workspace(x, w, exact.output, dtype, attrs, needs, rule) if any(needs) else 0,
    )


def _forward_workspace(x: Shape, w: Shape, y: Shape, dtype: str, attrs: Attrs, needs: Needs, rule: str) -> int:
    groups, output = attrs.get("groups", 1), nbytes(y, dtype)
    area, terms, outputs = size(y[1:3]), size(w[1:]), w[0] // groups
    columns, rows = area * terms, outputs * terms
    multiplying = columns + room_bytes(product_room(area, terms, outputs, rule))
    return beyond(
        output + size(x) * needs[1],
        size(x) + room_bytes(rounding_room(x, dtype, noisy=False)),
        size(x) + size(w) + room_bytes(rounding_room(w, dtype, noisy=False)),
        size(x) + size(w) + output + rows + max(columns + _padded(x, w), multiplying),
    )


def _backward_workspace(x: Shape, w: Shape, y: Shape, dtype: str, attrs: Attrs, needs: Needs, rule: str) -> int:
    groups, gx, gw = attrs.get("groups", 1), needs[0] * nbytes(x, dtype), needs[1] * nbytes(w, dtype)
    area, terms, outputs = size(y[1:3]), size(w[1:]), w[0] // groups
    columns, rows = area * terms, outputs * terms
    back, grad = product_room(area, outputs, terms, rule), product_room(outputs, area, terms, rule)
    spread = 8 * size(_spread((*x[1:3], w[1]), w[2], attrs.get("stride", 1)))
    within = size(y) + size(w) + gx + gw + rows + 8 * rows
    return beyond(
        gx + gw,
        size(y) + room_bytes(rounding_room(y, dtype, noisy=True)),
        size(y) + size(w) + room_bytes(rounding_room(w, dtype, noisy=False)),
        needs[0] * (within + room_bytes(back)),
        needs[0] * (within + nbytes((area, terms), "int32") + spread),
        needs[1] * (within + columns + max(_padded(x, w), room_bytes(grad))),
    )


def _rows(filters: Array) -> Array:
    """(O, C, k, k) as (O, k k C), in the order of a patch."""
    return np.ascontiguousarray(filters.transpose(0, 2, 3, 1)).reshape(len(filters), -1)


def _filters(rows: Array, shape: Shape) -> Array:
    """The other way round."""
    outputs, channels, kernel, _ = shape
    return rows.reshape(outputs, kernel, kernel, channels).transpose(0, 3, 1, 2)


def _columns(x: Array, kernel: int, stride: int) -> Array:
    """The patch of each output position of x (H, W, C): (Ho Wo, k k C), zeros outside x."""
    pad = kernel // 2
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(0, 1))[::stride, ::stride]
    return windows.transpose(0, 1, 3, 4, 2).reshape(size(windows.shape[:2]), -1)


def _padded(x: Shape, w: Shape) -> int:
    """Bytes of one group's channels of a sample with zeros around it."""
    pad = 2 * (w[2] // 2)
    return (x[1] + pad) * (x[2] + pad) * w[1]


def _spread(sample: Shape, kernel: int, stride: int) -> Shape:
    """Shape of a sample (H, W, C) with room around it for every patch."""
    pad = 2 * (kernel // 2) + stride
    return sample[0] + pad, sample[1] + pad, sample[2]


def _scattered(sums: Array, sample: Shape, kernel: int, stride: int) -> Array:
    """The transpose of `_columns`: what each patch sends to the positions it was read from, added up in int64."""
    height, width, channels = sample
    pad, high, wide = kernel // 2, -(-height // stride), -(-width // stride)
    parts = sums.reshape(high, wide, kernel, kernel, channels)
    out = np.zeros(_spread(sample, kernel, stride), np.int64)
    for u in range(kernel):
        for v in range(kernel):
            out[u : u + stride * high : stride, v : v + stride * wide : stride] += parts[:, :, u, v]
    return out[pad : pad + height, pad : pad + width]


def _scaled(sums: Array, scale: float, out: Array) -> None:
    """out = scale sums, computed in float64."""
    np.multiply(sums, scale, out=out, casting="same_kind")


conv_int = Op(
    "conv_int", ("x", "weight"), Functions(grouped_conv.output_shape, forward, backward, cost),
    attrs=("groups", "stride", "seed"), rules=RULES, approximate=RULES,
)  # fmt: skip
