"""Elementwise loops that NumPy could only do with temporaries: Hard-Swish and its exact backward."""

from __future__ import annotations

from minitl.arrays import Array
from minitl.kernels import threads
from minitl.kernels.jit import jit


def hard_swish(x: Array, out: Array) -> None:
    """out = x * relu6(x + 3) / 6, computed in that order; flat arrays."""
    threads.run(lambda a, b: _hard_swish(x[a:b], out[a:b]), threads.chunks(x.size, x.size))


def hard_swish_backward(x: Array, gy: Array, out: Array) -> None:
    """out = gy * (0 where x <= -3, 1 where x >= 3, else (2x + 3) / 6); flat arrays."""
    spans = threads.chunks(x.size, x.size)
    threads.run(lambda a, b: _hard_swish_backward(x[a:b], gy[a:b], out[a:b]), spans)


@jit
def _hard_swish(x: Array, out: Array) -> None:
    zero, three, six = x.dtype.type(0), x.dtype.type(3), x.dtype.type(6)
    for i in range(x.size):
        out[i] = x[i] * min(max(x[i] + three, zero), six) / six


@jit
def _hard_swish_backward(x: Array, gy: Array, out: Array) -> None:
    two, three, six = x.dtype.type(2), x.dtype.type(3), x.dtype.type(6)
    for i in range(x.size):
        inside = gy[i] * ((two * x[i] + three) / six)
        out[i] = 0 if x[i] <= -three else gy[i] if x[i] >= three else inside
