"""Optimizer updates of one parameter, in place, without a temporary of its size.

All arrays are flat, of one length and dtype; arithmetic is in that dtype. Each function tells
whether all it computes is finite; with `write=False` that is all it does, so that a whole step can
be refused before any parameter has moved. Gradients are multiplied by `factor` (1 unless their norm
is clipped).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl.arrays import Array
from minitl.kernels import threads
from minitl.kernels.jit import jit


def descend(p: Array, g: Array, lr: float, factor: float, decay: float, *, write: bool) -> bool:
    """p <- p - lr (factor g + decay p)."""
    return _finite(p, lambda a, b, bad: _descend(p[a:b], g[a:b], lr, factor, decay, write, bad))


def momentum(
    p: Array,
    g: Array,
    velocity: Array,
    lr: float,
    factor: float,
    keep: float,
    decay: float,
    *,
    nesterov: bool,
    write: bool,
) -> bool:
    """velocity <- keep velocity + h with h = factor g + decay p; then p <- p - lr velocity.

    With `nesterov`, p <- p - lr (h + keep velocity) instead.
    """
    direct, share = (1.0, keep) if nesterov else (0.0, 1.0)

    def chunk(a: int, b: int, bad: Array) -> None:
        _momentum(p[a:b], g[a:b], velocity[a:b], lr, factor, keep, decay, direct, share, write, bad)

    return _finite(p, chunk)


def adam(
    p: Array,
    g: Array,
    mean: Array,
    square: Array,
    lr: float,
    factor: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    remain: float,
    *,
    write: bool,
) -> bool:
    """mean <- b1 mean + (1 - b1) h and square <- b2 square + (1 - b2) h^2, with h = factor g + decay p.

    Then p <- remain p - lr mean / (sqrt(square) + eps): the caller folds both bias corrections into
    `lr` and `eps`.
    """

    def chunk(a: int, b: int, bad: Array) -> None:
        _adam(p[a:b], g[a:b], mean[a:b], square[a:b], lr, factor, *betas, eps, decay, remain, write, bad)

    return _finite(p, chunk)


def _finite(p: Array, chunk: Callable[[int, int, Array], None]) -> bool:
    """Run `chunk` over the spans of p, each with a counter of its own; whether no counter moved."""
    spans = threads.chunks(p.size, p.size)
    bad = np.zeros((len(spans), 1), np.int64)
    counters = {start: counter for (start, _), counter in zip(spans, bad, strict=True)}
    threads.run(lambda a, b: chunk(a, b, counters[a]), spans)
    return not bad.any()


@jit
def _descend(p: Array, g: Array, lr: float, factor: float, decay: float, write: bool, bad: Array) -> None:
    rate, clip, shrink = p.dtype.type(lr), p.dtype.type(factor), p.dtype.type(decay)
    wrong = 0
    for i in range(p.size):
        new = p[i] - rate * (clip * g[i] + shrink * p[i])
        wrong += not np.isfinite(new)
        if write:
            p[i] = new
    bad[0] = wrong


@jit
def _momentum(
    p: Array,
    g: Array,
    velocity: Array,
    lr: float,
    factor: float,
    keep: float,
    decay: float,
    direct: float,
    share: float,
    write: bool,
    bad: Array,
) -> None:
    rate, clip, kept, shrink = p.dtype.type(lr), p.dtype.type(factor), p.dtype.type(keep), p.dtype.type(decay)
    straight, carried = p.dtype.type(direct), p.dtype.type(share)
    wrong = 0
    for i in range(p.size):
        h = clip * g[i] + shrink * p[i]
        v = kept * velocity[i] + h
        new = p[i] - rate * (straight * h + carried * v)  # not finite where v is not, even at rate 0
        wrong += not np.isfinite(new)
        if write:
            velocity[i] = v
            p[i] = new
    bad[0] = wrong


@jit
def _adam(
    p: Array,
    g: Array,
    mean: Array,
    square: Array,
    lr: float,
    factor: float,
    b1: float,
    b2: float,
    eps: float,
    decay: float,
    remain: float,
    write: bool,
    bad: Array,
) -> None:
    rate, clip, small, shrink = p.dtype.type(lr), p.dtype.type(factor), p.dtype.type(eps), p.dtype.type(decay)
    keep1, add1 = p.dtype.type(b1), p.dtype.type(1 - b1)
    keep2, add2 = p.dtype.type(b2), p.dtype.type(1 - b2)
    one, rest = p.dtype.type(1), p.dtype.type(remain)
    wrong = 0
    for i in range(p.size):
        h = clip * g[i] + shrink * p[i]
        m = keep1 * mean[i] + add1 * h
        s = keep2 * square[i] + add2 * h * h  # not finite where m is not
        divisor = np.sqrt(s) + small
        new = rest * p[i] - rate * m / (divisor if divisor > 0 else one)
        wrong += not (np.isfinite(new) and np.isfinite(s) and divisor > 0)
        if write:
            mean[i] = m
            square[i] = s
            p[i] = new
    bad[0] = wrong
