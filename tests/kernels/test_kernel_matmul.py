"""The two forms of the matrix product agree within their rounding, and the ordered one is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from cases import gamma, unit
from hypothesis import given
from hypothesis import strategies as st

from minitl.arrays import Array
from minitl.kernels.matmul import matmul

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SIZES = st.tuples(*[st.integers(1, 40)] * 3)


def factors(sizes: tuple[int, int, int], dtype: str, seed: int = 0) -> tuple[Array, Array]:
    rng, (m, k, n) = np.random.default_rng(seed), sizes
    return rng.standard_normal((k, m)).astype(dtype).T, rng.standard_normal((k, n)).astype(dtype)


def product(a: Array, b: Array, portable: bool) -> Array:
    out = np.full((len(a), b.shape[1]), np.nan, a.dtype)
    matmul(a, b, out, portable=portable)
    return out


@DTYPES
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_ordered_is_blas_within_rounding(dtype: str, sizes: tuple[int, int, int], seed: int) -> None:
    a, b = factors(sizes, dtype, seed)
    bound = 2 * gamma(sizes[1], unit(dtype)) * (abs(a).astype("float64") @ abs(b).astype("float64"))
    assert (abs(product(a, b, True) - product(a, b, False)) <= 1.01 * bound).all()  # 1.01: the bound is rounded as well


@DTYPES
def test_ordered_sums_in_order_in_float64_and_rounds_once(dtype: str) -> None:
    a, b = factors((7, 300, 5), dtype)
    total = np.zeros((7, 5))
    for k in range(300):
        total += a[:, k : k + 1].astype("float64") * b[k]
    assert np.array_equal(product(a, b, True), total.astype(dtype))


def test_ordered_in_float32_is_exact_where_products_are_not() -> None:
    """(1 + e)^2 - (1 + 2 e) = e^2 with e = 2^-20: lost as soon as a product is rounded to float32."""
    e = np.float32(2.0**-20)
    a, b = np.array([[1 + e, 1]], "float32"), np.array([[1 + e], [-(1 + 2 * e)]], "float32")
    assert product(a, b, True) == 2.0**-40
