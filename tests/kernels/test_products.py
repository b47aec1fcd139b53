"""The three products give the bits of the plain loops, however much of the last vector of channels there is."""

from __future__ import annotations

import numpy as np
import pytest
from checks import same_bytes
from models import needs_the_compiler, noise

from minitl.kernels import pointwise


@needs_the_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 4, 8, 15, 16, 19, 24, 40, 47, 49])
@pytest.mark.parametrize("count", [5, 37])
def test_products_are_those_of_the_loops(dtype: str, outputs: int, count: int) -> None:
    x, gy = noise((count, 6), dtype=dtype), noise((count, outputs), 1, dtype=dtype)
    weight = noise((outputs, 6), 2, dtype=dtype)
    y, gx, gw = np.empty_like(gy), np.empty_like(x), np.empty_like(weight)
    pointwise.forward(x, weight, None, y)
    pointwise.grad_input(gy, weight, gx)
    pointwise.grad_weight(x, gy, gw)
    by_loops = np.zeros_like(y), np.zeros_like(gx), np.empty_like(gw)
    pointwise.loop_forward(x, weight.T, by_loops[0])
    pointwise.loop_forward(gy, weight, by_loops[1])
    pointwise.loop_grad_weight(x, gy, by_loops[2])
    assert all(same_bytes(got, expected) for got, expected in zip((y, gx, gw), by_loops, strict=True))
