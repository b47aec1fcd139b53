"""Optimizer updates of one parameter, in place, without a temporary of its size.

All arrays are flat, of one length and dtype; arithmetic is in that dtype. Each function tells
whether all it computes is finite; with `write=False` that is all it does, so that a whole step can
be refused before any parameter has moved. Gradients are multiplied by `factor` (1 unless their norm
is clipped). Without the compiler NumPy's lines run, which give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from minitl.arrays import Array
from minitl.kernels.compile import Kernel, Lazily, interpreted
from minitl.kernels.pointwise import spans
from minitl.kernels.tasks import Place, Recorder, Table

compiled = Lazily("minitl.kernels.compiled.update")


def descend(p: Array, g: Array, lr: float, factor: float, decay: float, *, write: bool) -> bool:
    """p <- p - lr (factor g + decay p)."""
    numbers = (lr, factor, decay)
    if not interpreted():
        return _run("descend", (p, g), numbers, write)
    rate, clip, shrink = _rounded(numbers, p)
    return _written((p,), (p - rate * (clip * g + shrink * p),), write)


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
    numbers = (lr, factor, keep, decay, *((1.0, keep) if nesterov else (0.0, 1.0)))
    if not interpreted():
        return _run("momentum", (p, g, velocity), numbers, write)
    rate, clip, kept, shrink, straight, carried = _rounded(numbers, p)
    h = clip * g + shrink * p
    v = kept * velocity + h
    return _written((p, velocity), (p - rate * (straight * h + carried * v), v), write)


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
    numbers = (lr, factor, eps, decay, betas[0], 1 - betas[0], betas[1], 1 - betas[1], remain)
    if not interpreted():
        return _run("adam", (p, g, mean, square), numbers, write)
    rate, clip, small, shrink, keep1, add1, keep2, add2, rest = _rounded(numbers, p)
    h = clip * g + shrink * p
    m, s = keep1 * mean + add1 * h, keep2 * square + add2 * h * h
    divisor = np.sqrt(s) + small
    new = rest * p - rate * m / np.where(divisor > 0, divisor, p.dtype.type(1))
    return bool((divisor > 0).all()) & _written((p, mean, square), (new, m, s), write)


def _rounded(numbers: Sequence[float], like: Array) -> list[np.floating]:
    return [like.dtype.type(number) for number in numbers]


def _written(arrays: Sequence[Array], results: Sequence[Array], write: bool) -> bool:
    """Whether the results are finite; copied into the arrays where they are to be written."""
    for array, result in zip(arrays, results, strict=True):
        if write:
            array[:] = result
    return all(bool(np.isfinite(result).all()) for result in results)


def _run(name: str, arrays: Sequence[Array], numbers: Sequence[float], write: bool) -> bool:
    pieces = list(spans(arrays[0].size, 1024))
    bad = np.zeros(len(pieces), np.int64)
    table = _table(name, arrays[0].size, arrays[0].dtype.name, len(arrays), write)
    table.run(*arrays, np.array(numbers, np.float64), bad)
    return not bad.any()


@lru_cache(maxsize=1024)
def _table(name: str, count: int, dtype: str, arrays: int, write: bool) -> Table:
    """The arrays, the numbers, the counters of results that are not finite."""
    record, rule = Recorder(), getattr(compiled, name)(dtype)
    assert isinstance(rule, Kernel)
    for number, span in enumerate(spans(count, 1024)):
        record.task()
        places = (Place(2 + i) for i in range(arrays + 1))
        record.call(rule, *places, Place(3 + arrays, 8 * number), *span, int(write))
    return record.table()
