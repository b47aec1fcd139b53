"""The arithmetic that formulas are written in: one function, run on NumPy arrays and inside the kernels.

A formula is a plain Python function of `+ - * /`, comparisons and the functions here. On arrays NumPy runs it.
While a kernel is compiled it runs on `Traced` values, whose arithmetic writes instructions: the
same operations in the same order, so the same bits. Nothing is contracted or reordered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minitl.arrays import Array

Formula = Callable[..., Any]


def _writes(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """An operator that writes the instruction of that name, and the one that Python asks where a number stands left."""
    return (lambda self, other: self.do(name, self, other)), (lambda self, other: self.do(name, other, self))


class Traced:
    """A value of a kernel that is being compiled. `emit` writes the instruction of that name."""

    def __init__(self, emit: Callable[..., Any], value: Any, dtype: str) -> None:
        self.emit, self.value, self.dtype = emit, value, np.dtype(dtype)

    def do(self, name: str, *operands: Any) -> Traced:
        """What the instruction gives of the operands, values or numbers."""
        given = (o.value if isinstance(o, Traced) else o for o in operands)
        return Traced(self.emit, self.emit(name, *given), self.dtype.name)

    __add__, __radd__ = _writes("add")
    __sub__, __rsub__ = _writes("sub")
    __mul__, __rmul__ = _writes("mul")
    __truediv__, __rtruediv__ = _writes("div")
    __lt__, __gt__ = _writes("lt")[0], _writes("gt")[0]
    __le__, __ge__ = _writes("le")[0], _writes("ge")[0]

    def __neg__(self) -> Traced:
        return self.do("neg", self)


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; at least one of them is a value, the other may be a number."""
    if isinstance(condition, Traced):
        return condition.do("where", condition, a, b)
    kind = (a if isinstance(a, np.ndarray | np.generic) else b).dtype
    return np.where(condition, np.asarray(a, kind), np.asarray(b, kind))


def indicator(condition: Any, like: Any) -> Any:
    """1 where the condition holds, else 0, in the precision of `like`."""
    if isinstance(condition, Traced):
        return condition.do("where", condition, 1.0, 0.0)
    return np.asarray(condition, like.dtype)


def minimum(a: Any, b: Any) -> Any:
    """`b` where b < a, else `a`: a NaN in `a` passes."""
    return where(a > b, b, a)


def maximum(a: Any, b: Any) -> Any:
    """`b` where b > a, else `a`: a NaN in `a` passes."""
    return where(a < b, b, a)


def sqrt(x: Any) -> Any:
    """The square root, correctly rounded."""
    return x.do("sqrt", x) if isinstance(x, Traced) else np.sqrt(x)


def two_to(n: Any) -> Any:
    """2^n for whole numbers n for which it is a normal number."""
    return n.do("two_to", n) if isinstance(n, Traced) else np.ldexp(np.ones_like(n), n.astype(np.int32))


LOG2_E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.693359375, -2.121944400546905827679e-4
ROUND = 12582912.0  # 1.5 * 2^23: adding and subtracting it rounds a small float32 to a whole number
ROUND64 = 6755399441055744.0  # 1.5 * 2^52
TERMS = {"float32": 7, "float64": 13}  # of the exponential's series on [-ln 2 / 2, ln 2 / 2]
REACH = {"float32": (-87.0, 88.0), "float64": (-708.0, 709.0)}  # where e^x is a normal number


def exp(x: Any) -> Any:
    """e^x in plain arithmetic, so that arrays and kernels agree to the bit: 2^n times a series in x - n ln 2.

    x is held within [-87, 88] (float64: [-708, 709]), where the result is a normal number; the
    relative error is at most 2 units in the last place. A NaN passes.
    """
    dtype = x.dtype.name
    x = minimum(maximum(x, REACH[dtype][0]), REACH[dtype][1])
    magic = ROUND if dtype == "float32" else ROUND64
    n = (x * LOG2_E + magic) - magic
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    total = r * (1.0 / _factorial(TERMS[dtype])) + 1.0 / _factorial(TERMS[dtype] - 1)
    for k in range(TERMS[dtype] - 2, -1, -1):
        total = total * r + 1.0 / _factorial(k)
    return total * two_to(n)


def _factorial(k: int) -> float:
    return float(np.prod(np.arange(1, k + 1), dtype=np.float64))


def log(x: Array) -> Array:
    """ln x of positive normal float64 numbers in plain arithmetic: x = 2^n m, ln m = 2 artanh((m - 1) / (m + 1))."""
    m, n = np.frexp(x)
    low = m < 0.7071067811865476
    m, n = np.where(low, m * 2, m), (n - low).astype(np.float64)
    z = (m - 1) / (m + 1)
    square, total = z * z, np.zeros_like(z)
    for k in range(23, 0, -2):
        total = total * square + 1.0 / k
    return np.asarray(n * LN2_HIGH + (n * LN2_LOW + 2 * (z * total)))
