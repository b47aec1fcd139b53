"""Sums of products: convolutions, linear layers, pools, a multiply by a gate, add; their outputs and gradients.

Each result f is a polynomial of its operands with non-negative coefficients, so it is largest in
absolute values. With m = f(|a|) and M = f(|a| + E(a)), computed by the op's own loops,

    E(f) = (M - m) + gamma(K + 2) M

the first term for what the operands bring, the second for K terms added in any order: K is how
many terms an element really has, taps in the padding left out. In gradient filtering, a sum of
products of sums, K counts all roundings in a row. Interpolation adds to its sums what its
coefficients bring: 2 gamma(4) (H + W) times the largest value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, positions
from minitl.ops.rules.gradient_filter import PATCH, sums_shape
from minitl.oracle.bounds.precision import Call, Errors, Precision


def _run(call: Call, arrays: Sequence[Array], gy: Array | None) -> list[Array | None]:
    y, saved = call.op.forward(*arrays, attrs=call.attrs, needs=call.needs, rule=call.rule)
    if gy is None:
        return [y]
    params = arrays[call.op.activations :]
    return list(call.op.backward(saved, gy, attrs=call.attrs, needs=call.needs, params=params))


def products(call: Call, gy: Array | None, error: Array | None, p: Precision) -> Errors:
    """Bounds of the output, or of all gradients where there is gy: what absolute values, raised by theirs, give."""
    small = _run(call, [np.abs(a) for a in call.arrays], None if gy is None else np.abs(gy))
    raised = [np.abs(a) + e for a, e in zip(call.arrays, call.errors, strict=True)]
    large = _run(call, raised, None if gy is None or error is None else np.abs(gy) + error)
    counts = _counts(call, gy)
    return [
        None if m is None or big is None or k is None else np.maximum(big - m, 0) + p.rounding(k + 2, big)
        for m, big, k in zip(small, large, counts, strict=True)
    ]


def _counts(call: Call, gy: Array | None) -> list[Array | None]:
    """How many terms each result has: the op applied to ones, where its coefficients are all 1; else a bound of it."""
    ones = _run(call, [np.ones_like(a) for a in call.arrays], None if gy is None else np.ones_like(gy))
    if (most := _most(call)) is None:
        return ones
    return [None if one is None else np.asarray(float(most)) for one in ones]


def _most(call: Call) -> int | None:
    """Of an op that averages, or whose results are sums of sums: the most roundings in a row."""
    x = call.arrays[0].shape
    if call.op.name == "global_avg_pool":
        return int(positions(x[1:]))
    if call.op.name == "avg_pool":
        return int(call.attrs["window"]) ** 2
    if call.op.name == "gated_conv":
        return int(positions(x) + sum(call.arrays[2].shape[:2]) + x[0] + 4)
    if call.rule in PATCH:
        outputs, *_, kernel = call.arrays[1].shape
        strided = PATCH[call.rule] * int(call.attrs.get("stride", 1))
        return int(2 * strided**2 + kernel**2 + max(outputs, positions(sums_shape(x, call.y.shape, PATCH[call.rule]))))
    return None


def forward(call: Call, p: Precision) -> None:
    """E(y)."""
    (error,) = products(call, None, None, p)
    assert error is not None
    call.y_error = error
    if call.rule in PATCH and "x_sums" in call.saved:
        call.kept["x_sums"] = _sums_error(call, p)


def _sums_error(call: Call, p: Precision) -> Array:
    """Bound of the sums over patches that gradient filtering keeps."""
    x, error = np.abs(call.arrays[0]), call.errors[0]
    _, small = call.op.forward(x, *call.arrays[1:], attrs=call.attrs, needs=call.needs, rule=call.rule)
    _, large = call.op.forward(x + error, *call.arrays[1:], attrs=call.attrs, needs=call.needs, rule=call.rule)
    m, big = small["x_sums"], large["x_sums"]
    return np.asarray(big - m + p.rounding((PATCH[call.rule] * call.attrs.get("stride", 1)) ** 2, big))


def backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """Those of the gradients."""
    return products(call, gy, error, p)


# Interpolation, whose coefficients are rounded too: a share of a line is off by at most gamma(4) times their number.


def bilinear_forward(call: Call, p: Precision) -> None:
    """Four terms, and of each the error of its share times the largest value there is."""
    (error,) = products(call, None, None, p)
    assert error is not None
    x = np.abs(call.arrays[0]) + call.errors[0]
    call.y_error = error + 2 * p.gamma(4) * sum(x.shape[1:3]) * x.max(axis=(1, 2), keepdims=True)


def bilinear_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """Of each axis: as many terms as outputs share in an input, times the other axis' shares, at most 1 + Ho / H."""
    (of_gx,) = products(call, gy, error, p)
    if of_gx is None:
        return [None]
    (high, wide), (tall, broad) = call.arrays[0].shape[1:3], gy.shape[1:3]
    rows = high * (2 * -(-tall // high) + 1) * (1 + broad / wide)
    columns = wide * (2 * -(-broad // wide) + 1) * (1 + tall / high)
    return [of_gx + p.gamma(4) * (rows + columns) * (np.abs(gy) + error).max(axis=(1, 2), keepdims=True)]
