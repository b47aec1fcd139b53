"""What a state dict must hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.arrays import Array, to_numpy
from minitl.errors import DtypeError, ShapeError, ValueRangeError, brief
from minitl.parameters import Parameter, expect_writable


def checked(parameter: Parameter, value: Any, dtype: str) -> Array:
    """The value of a parameter or statistic, converted to `dtype`; raises where it is not what the network can take."""
    name, array, shape = parameter.name, to_numpy(value, layer=parameter.name), parameter.value.shape
    expect_writable(name, parameter.value)
    if array.shape != shape:
        raise ShapeError(layer=name, expected=f"shape {shape}", got=f"{array.shape}")
    if array.dtype.kind != "f":
        raise DtypeError(layer=name, expected="floating point", got=array.dtype.name)
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ValueRangeError(layer=name, expected=f"finite {dtype} values", got="NaN, infinity or an overflow")
    if name.endswith(".running_var") and array.min() < 0:
        raise ValueRangeError(layer=name, expected="no negative variance", got=f"{array.min()}")
    return array


def checked_count(name: str, value: Any) -> int:
    """A counter of shape () or (1,): an integer, or a float that is whole."""
    array = to_numpy(value, layer=name)
    if array.shape not in ((), (1,)) or array.dtype.kind not in "iuf" or array.min() < 0 or array.min() % 1 != 0:
        raise ValueRangeError(layer=name, expected="a count, 0 or more", got=brief(value))
    return int(array.min())
