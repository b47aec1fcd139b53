"""The convolution by matrix products beside the ordered loops, on every kind of kernel, stride and map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import gamma, unit

from minitl.arrays import Array
from minitl.kernels import conv, conv_ordered

MAPS = [(1, 1), (1, 9), (2, 5), (9, 1), (4, 4), (7, 7), (8, 13)]


def operands(height: int, width: int, kernel: int, stride: int, dtype: str, inputs: int = 3) -> tuple[Array, ...]:
    """x, w and gy."""
    rng = np.random.default_rng(0)
    y = -(-height // stride), -(-width // stride)
    shapes = (3, height, width, inputs), (kernel, kernel, inputs, 5), (3, *y, 5)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def results(module: Any, x: Array, w: Array, gy: Array, stride: int) -> tuple[Array, Array]:
    """y and gw."""
    y, gw = np.full_like(gy, np.nan), np.full_like(w, np.nan)
    module.forward(x, w, stride, y)
    module.grad_weight(x, gy, stride, gw)
    return y, gw


def check_near(arrays: tuple[Array, ...], stride: int) -> None:
    """Both are sums of the same products, each within gamma of the exact sum (Higham 2002, 3.5)."""
    x, w, gy = arrays
    wide = (abs(a).astype(np.float64) for a in arrays)
    sizes = results(conv_ordered, *wide, stride=stride)
    factor = 2 * gamma(w[..., 0].size + gy[..., 0].size, unit(str(x.dtype)))
    both = results(conv, *arrays, stride=stride), results(conv_ordered, *arrays, stride=stride)
    for got, expected, size in zip(*both, sizes, strict=True):
        assert (abs(got.astype(np.float64) - expected) <= factor * size).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_products_and_loops_agree(kernel: int, stride: int, dtype: str) -> None:
    for height, width in MAPS:
        for inputs in (1, 3, 16):
            check_near(operands(height, width, kernel, stride, dtype, inputs), stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_few_rows_at_a_time(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = operands(13, 10, 3, stride, "float32")
    for rows in (1, 2, 4):
        monkeypatch.setattr(conv, "PATCHES", rows * arrays[2].shape[2] * 27)
        check_near(arrays, stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_it_runs_without_the_compiler(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = results(conv, *operands(6, 5, 3, stride, "float64"), stride=stride)
    monkeypatch.setattr(conv, "_gather", conv._gather.__wrapped__)  # type: ignore[attr-defined]
    plain = results(conv, *operands(6, 5, 3, stride, "float64"), stride=stride)
    assert all((a == b).all() for a, b in zip(compiled, plain, strict=True))
