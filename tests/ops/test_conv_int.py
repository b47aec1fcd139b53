"""Convolution in integers: bit planes equal integers to the bit, and both the exact one up to quantisation."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Dims, Spec, make, run
from checks import check_kept, check_needed_for, check_one_by_one, same_bytes

from minitl import ops
from minitl.arrays import Array
from minitl.errors import ShapeError
from minitl.ops.convolutions.integers import BIT_SERIAL, INTEGER, product, quantise

SIZES = (
    Dims(h=6, w=5), Dims(k=1, c=7, o=5), Dims(k=5, stride=2, h=7, o=1), Dims(n=1, h=1, w=1, c=1), Dims(h=8, stride=2),
)  # fmt: skip
sizes = pytest.mark.parametrize("dims", SIZES, ids=range(len(SIZES)))
RNG = np.random.default_rng(0)


def spec(rule: str) -> Spec:
    return Spec(
        ops.conv_int,
        lambda d: ((d.n, d.h, d.w, 2 * d.c), (2 * d.o, d.c, d.k, d.k)),
        lambda d: {"groups": 2, "stride": d.stride, "seed": (3,)},
        rule=rule,
    )


def int8(*shape: int) -> Array:
    return RNG.integers(-128, 128, shape, np.int8)


@pytest.mark.parametrize("terms", [1, 7, 8, 13, 325])
def test_bit_planes_give_the_integer_product(terms: int) -> None:
    a, b = int8(9, terms), int8(5, terms)
    expected = a.astype(np.int64) @ b.astype(np.int64).T
    for rule in (INTEGER, BIT_SERIAL):
        assert np.array_equal(product(a, b, rule), expected)
    least = np.full((1, terms), -128, np.int8)
    assert product(least, least, BIT_SERIAL)[0, 0] == terms * 128**2


@sizes
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bit_serial_is_integer_to_the_bit(dims: Dims, dtype: str) -> None:
    one, other = (run(make(spec(rule), dims, dtype=dtype)) for rule in (INTEGER, BIT_SERIAL))
    assert same_bytes(one.y, other.y)
    assert all(same_bytes(a, b) for a, b in zip(one.gradients, other.gradients, strict=True))


@sizes
def test_small_integers_are_exact(dims: Dims) -> None:
    """Whole numbers with a 127 among them have scale 1: nothing is rounded."""
    case = make(spec(INTEGER), dims)
    x, weight = (RNG.integers(-126, 127, a.shape).astype(float) for a in case.arrays)
    gy = RNG.integers(-126, 127, case.gy.shape).astype(float)
    for a in (x, weight, gy):
        a.flat[0] = 127
    attrs = {"groups": 2, "stride": dims.stride}
    results = []
    for op in (ops.conv_int, ops.grouped_conv):
        y, saved = op.forward(x, weight, attrs=attrs, needs=(True, True))
        results.append((y, *op.backward(saved, gy, attrs=attrs, needs=(True, True), params=(weight,))))
    for got, expected in zip(*results, strict=True):
        assert np.array_equal(got, expected)


@sizes
def test_kept_buffers(dims: Dims) -> None:
    for dtype in ("float32", "float64"):
        case = make(spec(INTEGER), dims, dtype=dtype)
        for check in (check_kept, check_needed_for, check_one_by_one):
            check(case)
        _, saved = case.op.forward(*case.arrays, **case.keywords)
        assert saved["codes"].dtype == np.int8
        assert saved["codes"].nbytes == case.arrays[0].size


def test_random_rounding_has_the_right_mean() -> None:
    values = RNG.standard_normal((7, 11))
    rng = np.random.default_rng(1)
    draws = np.array([codes * scale for codes, scale in (quantise(values, rng) for _ in range(3000))])
    step = abs(values).max() / 127
    assert abs(draws - values).max() <= step
    assert abs(draws.mean(axis=0) - values).max() <= 5 * step / 2 / np.sqrt(len(draws))


def test_sums_that_32_bits_could_not_hold_are_refused() -> None:
    """Of ones, 366 x 366 products of 127^2 would come out negative in the weight's gradient."""
    for shapes in (((1, 366, 366, 1), (1, 1, 1, 1)), ((1, 1, 1, 133_145), (1, 133_145, 1, 1))):
        with pytest.raises(ShapeError, match="133,144"):
            ops.conv_int.output_shape(shapes, {})
    x, w = np.ones((1, 364, 364, 1)), np.ones((1, 1, 1, 1))
    y, saved = ops.conv_int.forward(x, w, needs=(True, True))
    _, gw = ops.conv_int.backward(saved, np.ones_like(y), needs=(True, True), params=(w,))
    assert gw is not None
    assert gw.item() == pytest.approx(364 * 364)


def test_zeros_have_a_scale() -> None:
    y, saved = ops.conv_int.forward(np.zeros((1, 4, 4, 2)), np.zeros((2, 2, 3, 3)), needs=(True, True))
    assert not y.any()
    gx, gw = ops.conv_int.backward(saved, np.zeros((1, 4, 4, 2)), needs=(True, True), params=(np.zeros((2, 2, 3, 3)),))
    assert not gx.any()
    assert not gw.any()
