"""What a backward rule carries from step to step: the channels that train, or bases of a convolution's input.

It is made at the first training step, from what is there by then: the weights that were loaded, the first batch. A
shadow makes stand-ins of the same sizes, and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from minitl.arrays import Array, Shape
from minitl.ops.rules.subspace import BASES, FIXED, follow, orthonormal
from minitl.parameters import Parameter

ROUNDS = 8  # of subspace iteration, on the first batch, for bases that stay


def largest(weight: Array, axis: int, count: int) -> tuple[int, ...]:
    """The `count` channels along an axis whose weights have the largest norm, in rising order; ties go by index."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    norms = np.sqrt((weight.astype(np.float64) ** 2).sum(axis=others))
    return tuple(int(c) for c in np.sort(np.argsort(-norms, kind="stable")[:count]))


def bases(path: str, x: Array, shapes: Sequence[Shape], rule: str) -> tuple[Parameter, ...]:
    """Bases for an input x: at random, by the layer's path; for the rule whose bases stay, settled on this x."""
    found = []
    for axis, (name, (rank, side)) in enumerate(zip(BASES, shapes, strict=True), start=1):
        columns = np.random.default_rng((crc32(path.encode()), axis)).standard_normal((side, rank))
        basis = np.ascontiguousarray(orthonormal(columns).T.astype(x.dtype))
        for _ in range(ROUNDS if rule == FIXED else 0):
            follow(x, axis, basis)
        found.append(Parameter(f"{path}.{name}", basis, state=True))
    return tuple(found)


def stand_ins(path: str, dtype: np.dtype[np.floating], shapes: Sequence[Shape]) -> tuple[Parameter, ...]:
    """Parameters of those shapes that take no memory."""
    zero = np.zeros((), dtype)
    named = zip(BASES, shapes, strict=True)
    return tuple(Parameter(f"{path}.{name}", np.broadcast_to(zero, shape), state=True) for name, shape in named)
