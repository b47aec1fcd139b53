"""A grouped convolution computed in integers: 8-bit operands, 32-bit sums, forward and backward.

    x ~ sx X,  W ~ sw V     with X, V in [-127, 127], s = max |.| / 127, rounded to nearest
    y  = sx sw conv(X, V)
    gx = sg sw conv^T(G, V),  gW = sg sx corr(G, X)     with gy ~ sg G, rounded at random, without bias

The products of a sample have exact sums below 2^31 (longer ones are refused), and gW adds them up in 64 bits; the
rules differ in how they are computed (see `integers`). Kept for gW: X, 1 byte per value, and sx. Gradients are
approximate. This scheme is minitl's own: the quantiser of INT8 Rep-Net in memory (Zhang et al. 2024, DOI
10.1109/TCAD.2024.3371268) is not public.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.errors import ShapeError
from minitl.ops.convolutions.grouped_conv import grouped_conv, groups_of
from minitl.ops.convolutions.integers import RULES, TERMS, product, product_bytes, quantise, quantising_bytes
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, beyond, keeps_array
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """The grouped convolution's; raises ShapeError where a sum of y, gx or gW could pass 2^31."""
    y, w = grouped_conv.output_shape(shapes, attrs), shapes[1]
    longest = max(size(w[1:]), w[0] // attrs.get("groups", 1), size(y[1:3]))
    if longest > TERMS:
        expected, got = f"sums of at most {TERMS:,} products a sample, for 32 bits", f"x {shapes[0]} and weight {w}"
        raise ShapeError(op="conv_int", expected=expected, got=got, remedy="use smaller images")
    return y


def forward(x: Array, weight: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y in integers, scaled; keeps the codes of x when the weight is trained."""
    (codes, sx), (filters, sw) = quantise(x), quantise(weight)
    y = np.empty(output_shape((x.shape, weight.shape), attrs), x.dtype)
    for into, out in groups_of(x.shape[3], len(weight), attrs):
        rows = _rows(filters[out])
        for sample, result in zip(codes[..., into], y[..., out], strict=True):
            sums = product(_columns(sample, weight.shape[2], attrs.get("stride", 1)), rows, rule)
            _scaled(sums.reshape(result.shape), sx * sw, result)
            del sums
    saved = Saved()
    if needs[1]:
        saved.keep("codes", codes, GRAD_WEIGHT)
        saved.keep("scale", np.full(1, sx, x.dtype), GRAD_WEIGHT)
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx and gW in integers, scaled: those that `needs` asks for."""
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


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The multiply-adds of the grouped convolution; in passing codes, and of a sample patches, sums and products."""
    (x, w), groups, stride = shapes, attrs.get("groups", 1), attrs.get("stride", 1)
    exact = grouped_conv.cost(shapes, dtype, attrs=grouped_conv.own(attrs), needs=needs)
    y, output = exact.output, nbytes(exact.output, dtype)
    gx, gw = needs[0] * nbytes(x, dtype), needs[1] * nbytes(w, dtype)
    area, terms, outputs, sample = size(y[1:3]), size(w[1:]), w[0] // groups, (*x[1:3], w[1])
    columns, rows, padded = area * terms, outputs * terms, size(_padded(sample, w[2]))
    within = size(y) + size(w) + gx + gw + rows + 8 * rows
    return replace(
        exact,
        kept=(keeps_array("codes", x, "int8", GRAD_WEIGHT), keeps_array("scale", (1,), dtype, GRAD_WEIGHT)) * needs[1],
        forward_workspace=beyond(
            output + size(x) * needs[1],
            quantising_bytes(x, dtype),
            size(x) + quantising_bytes(w, dtype),
            size(x) + size(w) + output + rows + columns + max(padded, product_bytes(area, terms, outputs, rule)),
        ),
        backward_workspace=beyond(
            gx + gw,
            quantising_bytes(y, dtype, noisy=True),
            size(y) + quantising_bytes(w, dtype),
            needs[0] * (within + product_bytes(area, outputs, terms, rule)),
            needs[0] * (within + 4 * columns + 8 * size(_padded(sample, w[2], stride))),
            needs[1] * (within + columns + max(padded, product_bytes(outputs, area, terms, rule))),
        ),
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


def _padded(sample: Shape, kernel: int, more: int = 0) -> Shape:
    """Shape of a sample (H, W, C) with kernel // 2 zeros on every side, and `more` of them below and on the right."""
    pad = 2 * (kernel // 2) + more
    return sample[0] + pad, sample[1] + pad, sample[2]


def _scattered(sums: Array, sample: Shape, kernel: int, stride: int) -> Array:
    """The transpose of `_columns`: what each patch sends to the positions it was read from, added up in int64."""
    height, width, channels = sample
    pad, high, wide = kernel // 2, -(-height // stride), -(-width // stride)
    parts = sums.reshape(high, wide, kernel, kernel, channels)
    out = np.zeros(_padded(sample, kernel, stride), np.int64)
    for u in range(kernel):
        for v in range(kernel):
            out[u : u + stride * high : stride, v : v + stride * wide : stride] += parts[:, :, u, v]
    return out[pad : pad + height, pad : pad + width]


def _scaled(sums: Array, scale: float, out: Array) -> None:
    """out = scale sums, computed in float64."""
    np.multiply(sums, scale, out=out, casting="same_kind")


conv_int = Op(
    "conv_int", ("x", "weight"), Functions(output_shape, forward, backward, cost),
    attrs=("groups", "stride", "seed"), rules=RULES, approximate=RULES,
)  # fmt: skip
