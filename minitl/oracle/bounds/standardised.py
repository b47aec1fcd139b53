"""Convolutions whose filters are standardised: the filters as a norm, then a sum of products with them.

Of a filter's n numbers w, with v = w - mean, d = sqrt(sum v^2 / (n - 1)) + eps, and rho as of a variance over n,

    E(mean) = gamma(n + 2) mean |w|            E(v) = E(mean) + gamma(2) (|w| + mean |w|)
    E(v / d) = (1 + rho) E(v) / d + rho |v / d|

and the sum in their gradient and its two factors d add 3 rho + gamma(8) of its terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minitl import ops
from minitl.arrays import Array
from minitl.ops.convolutions.standardised_conv import EPS, standardise
from minitl.oracle.bounds import sums
from minitl.oracle.bounds.precision import Call, Errors, Precision


@dataclass(eq=False)
class _Filters:
    """Standardised filters (O, n), their bounds, the relative error of 1 / d, and the deviations d - eps (O, 1)."""

    w: Array
    error: Array
    rho: Array
    deviation: Array


def _filters(call: Call, p: Precision) -> _Filters:
    weight, entering = call.arrays[1], call.errors[1].reshape(len(call.arrays[1]), -1)
    standard, deviation = standardise(weight)
    rows, n = np.abs(weight.reshape(len(weight), -1)), weight[0].size
    w, d = standard.reshape(len(weight), -1), deviation + EPS
    v = np.abs(w) * d
    of_mean = (entering.sum(axis=1, keepdims=True) + p.rounding(n + 2, rows.sum(axis=1, keepdims=True))) / n
    of_v = entering + of_mean + p.rounding(2, rows + rows.mean(axis=1, keepdims=True))
    squares = (v * v).sum(axis=1, keepdims=True)
    of_squares = (2 * v * (of_v - of_mean) + of_v**2).sum(axis=1, keepdims=True) + p.rounding(n + 5, squares)
    rho = of_squares / (2 * np.maximum(squares - of_squares, 1e-300)) + p.gamma(5)
    return _Filters(w, (1 + rho) * of_v / d + rho * np.abs(w), rho, deviation)


def forward(call: Call, p: Precision) -> None:
    """A grouped convolution with filters that are off by their bound."""
    inner = _inner(call, _filters(call, p))
    sums.forward(inner, p)
    call.y_error = inner.y_error


def backward(call: Call, gy: Array, error: Array, gradients: Sequence[Array | None], p: Precision) -> Errors:
    """The convolution's bounds; that of the filters' gradient carried on through the standardisation."""
    filters = _filters(call, p)
    inner = _inner(call, filters)
    of_gx, of_standard = sums.backward(inner, gy, error, gradients, p)
    if of_standard is None:
        return [of_gx, None]
    _, saved = inner.op.forward(*inner.arrays, attrs=call.attrs, needs=call.needs)
    _, g = inner.op.backward(saved, gy, attrs=call.attrs, needs=call.needs, params=inner.arrays[1:])
    assert g is not None
    return [of_gx, _through(filters, g.reshape(len(g), -1), of_standard.reshape(len(g), -1), p).reshape(g.shape)]


def _through(f: _Filters, g: Array, error: Array, p: Precision) -> Array:
    """Bound of the gradient of the filters from g, that of the standardised ones:  gv = (g - c w sum(g w)) / d."""
    n, d, size = g.shape[1], f.deviation + EPS, np.abs(f.w)
    c = d / (f.deviation * (n - 1))
    along = np.abs((g * f.w).sum(axis=1, keepdims=True))
    brought = error * size + (np.abs(g) + error) * f.error
    of_along = brought.sum(axis=1, keepdims=True) + p.rounding(n + 2, (np.abs(g) * size).sum(axis=1, keepdims=True))
    terms = np.abs(g) + c * size * along
    of_terms = error + c * (size * of_along + f.error * (along + of_along))
    of_gv = ((1 + f.rho) * of_terms + (3 * f.rho + p.gamma(8)) * terms) / d
    sizes = terms / d + of_gv
    return np.asarray(
        of_gv + of_gv.mean(axis=1, keepdims=True) + p.rounding(n + 3, sizes + sizes.mean(axis=1, keepdims=True))
    )


def _inner(call: Call, f: _Filters) -> Call:
    shape = call.arrays[1].shape
    arrays, errors = (call.arrays[0], f.w.reshape(shape)), (call.errors[0], f.error.reshape(shape))
    return replace(call, op=ops.grouped_conv, arrays=arrays, errors=errors, kept={})
