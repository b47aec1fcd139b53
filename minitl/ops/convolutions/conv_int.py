"""A grouped convolution computed in integers: 8-bit operands, 32-bit sums, forward and backward.

    x ~ sx X,  W ~ sw V     with X, V in [-127, 127], s = max |.| / 127, rounded to nearest
    y  = sx sw conv(X, V)
    gx = sg sw conv^T(G, V),  gW = sg sx corr(G, X)     with gy ~ sg G, rounded at random, without bias

All three products have exact sums below 2^31. The rule `bit-serial` computes them as a digital
in-memory array does, by AND and population count over bit planes: with two's complement, and s_i = -1
at the top bit and else 1,

    sum_k a_k b_k = sum over planes i, j of s_i s_j 2^(i + j) popcount(A_i & B_j)

to the bit the same numbers. Kept for gW: X, 1 byte per value, and sx. This scheme is minitl's own: the
quantiser of INT8 Rep-Net in memory (Zhang et al. 2024, DOI 10.1109/TCAD.2024.3371268) is not public.
Gradients are approximate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minitl.arrays import Array, Shape, nbytes, size
from minitl.ops.convolutions.grouped_conv import grouped_conv
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op
from minitl.saved import Kept, Saved

FOR = ("grad_weight",)
INTEGER, BIT_SERIAL = RULES = "integer", "bit-serial"
BITS, MOST = 8, 127


def forward(x: Array, weight: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """y in integers, scaled; keeps the codes of x when the weight is trained."""
    (codes, sx), (filters, sw) = quantise(x), quantise(weight)
    y = np.empty(grouped_conv.output_shape((x.shape, weight.shape), attrs), x.dtype)
    for into, out in _groups(x.shape[3], len(weight), attrs):
        columns = _columns(codes[..., into], weight.shape[2], attrs.get("stride", 1))
        sums = product(columns.reshape(-1, columns.shape[-1]), _rows(filters[out]), rule)
        y[..., out] = (sx * sw * sums).reshape(*y.shape[:3], -1)
    saved = Saved()
    if needs[1]:
        saved.keep("codes", codes, FOR)
        saved.keep("scale", np.full(1, sx, x.dtype), FOR)
    return y, saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: Sequence[Array]) -> Gradients:
    """gx and gW in integers, scaled: those that `needs` asks for."""
    (weight,), kernel, stride = params, params[0].shape[2], attrs.get("stride", 1)
    slopes, sg = quantise(gy, np.random.default_rng(attrs.get("seed", (0,))))
    filters, sw = quantise(weight)
    gx = np.empty(saved.input_shape, gy.dtype) if needs[0] else None
    gw = np.empty(weight.shape, gy.dtype) if needs[1] else None
    for into, out in _groups(saved.input_shape[3], len(weight), attrs):
        g = slopes[..., out].reshape(-1, out.stop - out.start)
        if gx is not None:
            sums = product(g, _rows(filters[out]).T, saved.rule)
            gx[..., into] = sg * sw * _scatter(sums, (*saved.input_shape[:3], into.stop - into.start), kernel, stride)
        if gw is not None:
            columns = _columns(saved["codes"][..., into], kernel, stride)
            sums = product(g.T, columns.reshape(-1, columns.shape[-1]).T, saved.rule)
            by_tap = sums.reshape(-1, kernel, kernel, into.stop - into.start)
            gw[out] = sg * float(saved["scale"][0]) * by_tap.transpose(0, 3, 1, 2)
    return gx, gw


def cost(shapes: Sequence[Shape], dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """The multiply-adds of the grouped convolution; in passing codes, gathered patches and their sums."""
    x, w = shapes
    inner = {name: value for name, value in attrs.items() if name in grouped_conv.attrs}
    exact = grouped_conv.cost(shapes, dtype, attrs=inner, needs=needs)
    kept = (
        Kept("codes", x, "int8", 8, size(x), FOR),
        Kept("scale", (1,), dtype, 8 * np.dtype(dtype).itemsize, nbytes((1,), dtype), FOR),
    )
    positions = size(exact.output[:3])
    room = positions * size(w[1:]) * 13 + size(exact.output) * 12 + size(x) * 9
    return Cost(
        output=exact.output,
        kept=kept if needs[1] else (),
        macs=exact.macs,
        flops=exact.flops,
        forward_workspace=room,
        backward_workspace=room * any(needs),
    )


def quantise(values: Array, rng: np.random.Generator | None = None) -> tuple[Array, float]:
    """Codes in int8 and their scale; rounded to nearest, or with `rng` at random so that the mean is the value."""
    scale = float(np.abs(values).max()) / MOST or 1.0
    scaled = values / scale
    whole = np.rint(scaled) if rng is None else np.floor(scaled + rng.random(values.shape))
    return np.clip(whole, -MOST, MOST).astype(np.int8), scale


def product(a: Array, b: Array, rule: str = INTEGER) -> Array:
    """a (M, K) times the transpose of b (O, K), int8, with sums in int32: at once, or plane by plane."""
    if rule == INTEGER:
        wide: Array = a.astype(np.int32) @ b.astype(np.int32).T
        return wide
    sums = np.zeros((len(a), len(b)), np.int32)
    for i, of_a in enumerate(_planes(a)):
        for j, of_b in enumerate(_planes(b)):
            sign = -1 if (i == BITS - 1) != (j == BITS - 1) else 1
            ones = np.bitwise_count(of_a[:, None] & of_b).sum(axis=-1, dtype=np.int32)
            sums += sign * (1 << (i + j)) * ones
    return sums


def _planes(codes: Array) -> Iterator[Array]:
    """The bits of weight 1, 2, 4, ... of all codes (M, K), packed along K."""
    unsigned = np.ascontiguousarray(codes).view(np.uint8)
    return (np.packbits(unsigned >> i & 1, axis=-1) for i in range(BITS))


def _groups(inputs: int, outputs: int, attrs: Attrs) -> Iterator[tuple[slice, slice]]:
    groups = attrs.get("groups", 1)
    wide, tall = inputs // groups, outputs // groups
    return ((slice(g * wide, (g + 1) * wide), slice(g * tall, (g + 1) * tall)) for g in range(groups))


def _rows(filters: Array) -> Array:
    """(O, C, k, k) as (O, k k C), in the order of a patch."""
    return filters.transpose(0, 2, 3, 1).reshape(len(filters), -1)


def _columns(x: Array, kernel: int, stride: int) -> Array:
    """The patch of each output position: (N, Ho, Wo, k k C), zeros outside x."""
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)


def _scatter(sums: Array, shape: Shape, kernel: int, stride: int) -> Array:
    """The transpose of `_columns`: what each patch sends to the positions it was read from, added up in int64."""
    n, height, width, channels = shape
    pad, high, wide = kernel // 2, -(-height // stride), -(-width // stride)
    parts = sums.reshape(n, high, wide, kernel, kernel, channels)
    out = np.zeros((n, height + 2 * pad + stride, width + 2 * pad + stride, channels), np.int64)
    for u in range(kernel):
        for v in range(kernel):
            out[:, u : u + stride * high : stride, v : v + stride * wide : stride] += parts[:, :, :, u, v]
    return out[:, pad : pad + height, pad : pad + width]


conv_int = Op(
    "conv_int", ("x", "weight"), Functions(grouped_conv.output_shape, forward, backward, cost),
    attrs=("groups", "stride", "seed"), rules=RULES, approximate=RULES,
)  # fmt: skip
