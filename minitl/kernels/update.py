"""Optimizer updates of one parameter, in place, without a temporary of its size.

All arrays are flat, of one length and dtype; arithmetic is in that dtype.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array
from minitl.kernels import threads
from minitl.kernels.jit import jit


def descend(p: Array, g: Array, lr: float, decay: float) -> None:
    """p <- p - lr (g + decay p)."""
    threads.run(lambda a, b: _descend(p[a:b], g[a:b], lr, decay), threads.chunks(p.size, p.size))


def momentum(p: Array, g: Array, velocity: Array, lr: float, keep: float, decay: float, nesterov: bool = False) -> None:
    """velocity <- keep velocity + h with h = g + decay p; then p <- p - lr velocity.

    With `nesterov`, p <- p - lr (h + keep velocity) instead.
    """
    spans, ahead = threads.chunks(p.size, p.size), (1.0, keep) if nesterov else (0.0, 1.0)
    threads.run(lambda a, b: _momentum(p[a:b], g[a:b], velocity[a:b], lr, keep, decay, *ahead), spans)


def adam(
    p: Array, g: Array, mean: Array, square: Array, lr: float, betas: tuple[float, float], eps: float, decay: float
) -> None:
    """mean <- b1 mean + (1 - b1) h and square <- b2 square + (1 - b2) h^2, with h = g + decay p.

    Then p <- p - lr mean / (sqrt(square) + eps): the caller folds both bias corrections into
    `lr` and `eps`.
    """
    spans = threads.chunks(p.size, p.size)
    threads.run(lambda a, b: _adam(p[a:b], g[a:b], mean[a:b], square[a:b], lr, betas[0], betas[1], eps, decay), spans)


@jit
def _descend(p: Array, g: Array, lr: float, decay: float) -> None:
    rate, shrink = p.dtype.type(lr), p.dtype.type(decay)
    for i in range(p.size):
        p[i] -= rate * (g[i] + shrink * p[i])


@jit
def _momentum(
    p: Array, g: Array, velocity: Array, lr: float, keep: float, decay: float, direct: float, share: float
) -> None:
    rate, kept, shrink = p.dtype.type(lr), p.dtype.type(keep), p.dtype.type(decay)
    straight, carried = p.dtype.type(direct), p.dtype.type(share)
    for i in range(p.size):
        h = g[i] + shrink * p[i]
        velocity[i] = kept * velocity[i] + h
        p[i] -= rate * (straight * h + carried * velocity[i])


@jit
def _adam(
    p: Array, g: Array, mean: Array, square: Array, lr: float, b1: float, b2: float, eps: float, decay: float
) -> None:
    rate, small, shrink = p.dtype.type(lr), p.dtype.type(eps), p.dtype.type(decay)
    keep1, add1 = p.dtype.type(b1), p.dtype.type(1 - b1)
    keep2, add2 = p.dtype.type(b2), p.dtype.type(1 - b2)
    for i in range(p.size):
        h = g[i] + shrink * p[i]
        mean[i] = keep1 * mean[i] + add1 * h
        square[i] = keep2 * square[i] + add2 * h * h
        p[i] -= rate * mean[i] / (np.sqrt(square[i]) + small)
