"""What minitl calls an array, and who owns its memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minitl.checks import as_count
from minitl.errors import DtypeError, brief

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

FLOATS = ("float32", "float64")


def to_numpy(value: Any, **where: str) -> Array:
    """`value` as an array: a PyTorch tensor is detached, bfloat16 becomes float32 (exactly), lists are converted.

    Raises DtypeError, at the `op` and `layer` given, for what is no array: a list of lists of several
    lengths, say.
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        array = np.asarray(value)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(expected="an array", got=f"{type(value).__name__} ({brief(error)})", **where) from None


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """`dtype.name`, which NumPy works out anew each time it is asked; of a swapped byte order `>f4`, say."""
    return dtype.name if dtype.isnative else str(dtype)


def owner(array: Any) -> Any:
    """The object whose memory `array` looks into: follow `.base` to the end.

    Two arrays share memory that must be counted once exactly when their owners are the same
    object. Stand-ins without a `.base` (see `shadow.Phantom`) own themselves.
    """
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def is_count(value: object, least: int) -> bool:
    """Whether value is an integer of any type of at least `least` (True and False are none)."""
    return as_count(value, least) is not None


@cache
def itemsize(dtype: str) -> int:
    """Bytes of a number."""
    return np.dtype(dtype).itemsize


def size(shape: Shape) -> int:
    """Number of elements in `shape` (1 for the scalar shape)."""
    count = 1
    for extent in shape:
        count *= extent
    return count


def nbytes(shape: Shape, dtype: npt.DTypeLike) -> int:
    """Bytes of a dense array of that shape and dtype."""
    return size(shape) * np.dtype(dtype).itemsize


def positions(shape: Shape) -> int:
    """How many values each channel has: the product of all axes but the last, (N, H, W, C) -> N H W."""
    return size(shape[:-1])


def as_rows(x: Array) -> Array:
    """A contiguous (..., C) array seen as (M, C), one row a position."""
    return x.reshape(-1, x.shape[-1])
