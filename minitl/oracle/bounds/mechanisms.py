"""Bounds of encoded inputs, subspaces, pruned weights and integers: sums of products with another operand each.

Inputs are float32 numbers, so what is chosen by comparing them (masks, pruned weights) is exact. What is rounded to
whole numbers must be further from the next rounding than 4 times its error; else there is no finite bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from minitl.arrays import Array, positions, size
from minitl.ops.convolutions.conv import conv
from minitl.ops.convolutions.integers import MOST
from minitl.ops.convolutions.linear import linear, pointwise_conv
from minitl.ops.op import Op
from minitl.ops.rules import approximate, quantised, sparse, subspace
from minitl.ops.rules.quantised import BITS, GROUP
from minitl.oracle.bounds import sums
from minitl.oracle.bounds.precision import Call, Errors, Precision

EXACT: dict[str, Op] = {op.name: op for op in (conv, linear, pointwise_conv)}
MARGIN = 4.0  # errors between a value and the next place where its code would change


def _inner(call: Call, *arrays: Array, errors: Sequence[Array] | None = None) -> Call:
    """The exact product of other operands."""
    zeros = [np.zeros(a.shape) for a in arrays] if errors is None else errors
    op = EXACT[call.op.name]
    attrs = {name: value for name, value in call.attrs.items() if name in op.attrs}
    return replace(
        call, op=op, arrays=arrays, errors=tuple(zeros), attrs=attrs, needs=call.needs[: len(arrays)], rule=""
    )


def _near(values: Array, error: Array, step: float = 1.0, offset: float = 0.0) -> bool:
    """Whether a value comes within its error of where rounding changes: offset + a multiple of the step."""
    off = values - offset
    return bool((np.abs(off - step * np.rint(off / step)) <= MARGIN * error).any())


# Encoded inputs: the forward is exact, gx too; gW is that of what the code stands for.


def coded_forward(call: Call, p: Precision) -> None:
    """E(y), as of any sum of products; none where a code is not certain."""
    inner = _inner(call, *call.arrays)
    sums.forward(inner, p)
    uncertain = call.rule in BITS and _uncertain_codes(call, p)
    call.y_error = inner.y_error + (np.inf if uncertain else 0.0)


def coded_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """gx as of the exact one; gW with lo + step code in place of x, two roundings."""
    gx, *rest = sums.backward(_inner(call, *call.arrays), gy, error, gradients, p)
    if not call.needs[1]:
        return [gx, *rest]
    x = _decoded(call, gy)
    of_x = p.rounding(2, _size_of_codes(call)) if call.rule in BITS else np.zeros(x.shape)
    decoded = _inner(call, x, *call.arrays[1:], errors=(of_x, *(np.zeros(a.shape) for a in call.arrays[1:])))
    return [gx, *sums.backward(decoded, gy, error, gradients, p)[1:]]


def _decoded(call: Call, gy: Array) -> Array:
    """The input that the code stands for: of some channels, with zeros in place of the others."""
    if call.rule != approximate.CHANNELS:
        return approximate.decoded(call.saved, gy.dtype)
    x = np.zeros(call.arrays[0].shape, gy.dtype)
    x[..., list(call.attrs["channels"])] = call.saved["x"]
    return x


def _ranges(call: Call) -> tuple[Array, Array]:
    """Each sample's lo and step of every value (N, H, W, C)."""
    halves, x = call.saved["ranges"], call.arrays[0]
    wide = quantised._from_bfloat16(halves).reshape(len(x), -1, 2)
    low, step = np.moveaxis(np.repeat(wide, GROUP, axis=1)[:, : size(x.shape[1:])], 2, 0)
    return low.reshape(x.shape), step.reshape(x.shape)


def _size_of_codes(call: Call) -> Array:
    low, step = _ranges(call)
    return np.asarray(np.abs(low) + step * (2 ** BITS[call.rule] - 1))


def _uncertain_codes(call: Call, p: Precision) -> bool:
    """Whether (x - lo) / step + noise, or the step itself, comes too near to where it is rounded otherwise."""
    x, per_sample = call.arrays[0].reshape(len(call.arrays[0]), -1), quantised.groups_of((1, *call.arrays[0].shape[1:]))
    padded = np.zeros((len(x), per_sample * GROUP))
    padded[:, : x.shape[1]] = x
    groups = padded.reshape(-1, GROUP)
    low, step = (quantised._from_bfloat16(half)[:, None] for half in call.saved["ranges"].T)
    added = np.asarray(call.attrs["seed"].numbers).reshape(groups.shape)
    scaled = (groups - low) / step + added
    raw = (groups.max(axis=1, keepdims=True) - low) / (2 ** BITS[call.rule] - 1)
    grid = 2.0 ** (np.floor(np.log2(raw)) - 7)  # of bfloat16 there
    return _near(scaled, p.gamma(4) * (scaled + 1)) or _near(raw / grid, p.gamma(4) * raw / grid)


# Pruned weights: one product with W_R, another with W_RC.


def pruned_forward(call: Call, p: Precision) -> None:
    """E(y)."""
    inner = _inner(call, call.arrays[0], *_pruned(call, both=False))
    sums.forward(inner, p)
    call.y_error = inner.y_error


def pruned_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """gx of W_RC; gW none where it is 0."""
    inner = _inner(call, call.arrays[0], *_pruned(call, both=True))
    gx, gw, *gb = sums.backward(inner, gy, error, gradients, p)
    return [gx, gw if gw is None else gw * (_pruned(call, both=False)[0] != 0), *gb]


def _pruned(call: Call, *, both: bool) -> tuple[Array, ...]:
    weight, pattern = call.arrays[1], call.attrs["pattern"]
    weight = weight * sparse.largest(weight, pattern, 1)
    return (weight * sparse.largest(weight, pattern, 0) if both else weight, *call.arrays[2:])


# Integers: sums are exact, scales are not.


def integer_forward(call: Call, p: Precision) -> None:
    """A scale's division by 127, the product of two scales, and that with the sum."""
    call.y_error = p.rounding(5, np.abs(call.y))
    call.kept["scale"] = p.rounding(1, np.abs(call.saved["scale"])) if "scale" in call.saved else np.zeros(1)
    for array in call.arrays:
        scaled = array * (MOST / np.abs(array).max())
        if _near(scaled, p.gamma(3) * np.abs(scaled), offset=0.5):
            call.y_error = call.y_error + np.inf


def integer_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """The same of both gradients."""
    scaled = gy * (MOST / np.abs(gy).max()) + np.asarray(call.attrs["seed"].numbers).reshape(gy.shape)
    uncertain = np.inf if _near(scaled, p.gamma(4) * (np.abs(scaled) + 1)) else 0.0
    return [None if g is None else p.rounding(5, np.abs(g)) + uncertain for g in gradients]


# Subspaces. Sums of products of x and the bases, whose rows are orthonormal; where these move, a QR factorisation
# before:
#     e = |dQ|_F <= (1 + sqrt 2) |dA|_F / (least singular value of A)     to first order (Higham 2002, section 19.9)
# with dA the products' bound and gamma(8 D K) |A|_F of Householder's reflections, and a tenth more for what the first
# order leaves out. A core's sample is then off by the sum of the three e times |x|_F, and the restored one by
# twice that.


def subspace_forward(call: Call, p: Precision) -> None:
    """E(y) of the exact product; E of the core, and of the bases that moved."""
    x, weight, *given = call.arrays
    inner = _inner(call, x, weight)
    sums.forward(inner, p)
    call.y_error = inner.y_error
    if not call.needs[1]:
        return
    bases, turned = _bases(call, p)
    if call.rule == subspace.FOLLOWS:
        call.updated |= {n: np.full(b.shape, e) for n, b, e in zip(subspace.BASES, given, turned, strict=True)}
    size_of_core = _encoded(np.abs(x), [np.abs(b) for b in bases])
    call.kept["core"] = p.rounding(sum(x.shape[1:]) + 3, size_of_core) + _turned(x, turned)


def subspace_backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """gx of the exact product; gW of x encoded and restored, in absolute values, and what turned bases make of it."""
    x, weight = call.arrays[:2]
    gx, gw = sums.backward(_inner(call, x, weight), gy, error, gradients, p)
    if gw is not None:
        bases, turned = _bases(call, p)
        sizes = [np.abs(b) for b in bases]
        restored = np.einsum("nabd,ah,bw,dc->nhwc", _encoded(np.abs(x), sizes), *sizes)
        steps = sum(x.shape[1:]) + sum(map(len, bases)) + 6 + positions(gy.shape)
        of_gy, size_of_gw = (_weight_gradient(call, restored, g) for g in (error, np.abs(gy) + error))
        lengths = np.sqrt((gy * gy).sum(axis=(1, 2), keepdims=True))  # (N, 1, 1, O)
        by_output = (2 * _turned(x, turned) * lengths).sum(axis=(0, 1, 2))
        gw = of_gy + p.rounding(steps, size_of_gw) + by_output[:, None, None, None]
    return [gx, gw, None, None, None]


def _turned(x: Array, turned: Sequence[float]) -> Array:
    """How far the core of each sample (N, 1, 1, 1) is off, as its bases are."""
    return np.asarray(1.01 * sum(turned) * np.sqrt((x * x).sum(axis=(1, 2, 3), keepdims=True)))


def _weight_gradient(call: Call, x: Array, gy: Array) -> Array:
    inner = _inner(call, x, call.arrays[1])
    _, saved = inner.op.forward(*inner.arrays, attrs=inner.attrs, needs=(False, True))
    found = inner.op.backward(saved, np.array(gy), attrs=inner.attrs, needs=(False, True), params=inner.arrays[1:])[1]
    assert found is not None
    return found


def _encoded(x: Array, bases: Sequence[Array]) -> Array:
    return np.asarray(np.einsum("nhwc,ah,bw,dc->nabd", x, *bases))


def _bases(call: Call, p: Precision) -> tuple[list[Array], list[float]]:
    """The bases that x is encoded by, and the bounds of their norms."""
    given = list(call.arrays[2:])
    if call.rule != subspace.FOLLOWS:
        return given, [0.0] * len(given)
    pairs = [_moved(call.arrays[0], axis, basis, p) for axis, basis in enumerate(given, 1)]
    return [b for b, _ in pairs], [e for _, e in pairs]


def _moved(x: Array, axis: int, basis: Array, p: Precision) -> tuple[Array, float]:
    """Q of A A^T B^T, signed as by Householder's reflections, and its bound; none where a sign may turn."""
    unfolded = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    columns = unfolded @ (unfolded.T @ basis.T)
    sizes = np.abs(unfolded) @ (np.abs(unfolded.T) @ np.abs(basis.T))
    entering = float(np.linalg.norm(p.rounding(sum(unfolded.shape) + 2, sizes)))
    entering += float(p.gamma(8 * basis.size)) * float(np.linalg.norm(columns))
    error = 1.1 * (1 + 2**0.5) * entering / float(np.linalg.svd(columns, compute_uv=False)[-1])
    a, smallest = columns.copy(), np.inf
    for k in range(a.shape[1]):
        v = a[k:, k].copy()
        smallest = min(smallest, float(abs(v[0]) / np.linalg.norm(v)))
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        a[k:, k:] -= np.outer(v, 2 / (v @ v) * (v @ a[k:, k:]))
    q = np.linalg.solve(np.triu(a[: a.shape[1]]).T, columns.T)  # Q^T = R^-T A^T
    return q, error if min(smallest, 0.1) > MARGIN * error else np.inf
