"""Activations at their kinks, the rules that are not the derivative, and the bits they keep."""

from __future__ import annotations

import numpy as np
import pytest
from checks import same_bytes

from minitl import ops
from minitl.arrays import Array
from minitl.bits import unpack
from minitl.ops import Op
from minitl.ops.activations.few_bits import hard_swish_levels

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def around_kinks(dtype: str) -> Array:
    """-3, -0.0, 0.0, 3, 6, their neighbours in that dtype, and others between and beyond; 9 channels of each."""
    kinks = np.array([-3, -0.0, 0.0, 3, 6], dtype)
    sides = [np.nextafter(kinks, np.array(far, dtype)) for far in (-np.inf, np.inf)]
    return np.repeat(np.concatenate([kinks, *sides, [-50, -4, -2, -0.5, 0.5, 2, 4, 50]]).astype(dtype)[:, None], 9, 1)


def slope(op: Op, x: Array, rule: str = "") -> Array:
    """gx for gy = 1."""
    _, saved = op.forward(x, needs=(True,), rule=rule)
    (gx,) = op.backward(saved, np.ones_like(x), needs=(True,))
    assert gx is not None
    return gx


def hard_swish_slope(x: Array) -> Array:
    return np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)).astype(x.dtype)


SLOPES = {
    ("relu", ""): lambda x: x > 0,
    ("relu", "output"): lambda x: x > 0,
    ("relu6", "codes"): lambda x: (x > 0) & (x < 6),
    ("relu6", "band"): lambda x: (x > 0) & (x < 6),
    ("relu6", "output"): lambda x: (x > 0) & (x < 6),
    ("relu6", "sign"): lambda x: x >= 0,
    ("hard_swish", "exact"): hard_swish_slope,
    ("hard_swish", "sign"): lambda x: x >= 0,
    ("hard_swish", "output-sign"): lambda x: ~np.signbit(x),
    ("hard_swish", "few1"): lambda x: x >= 0,
    ("hard_sigmoid", ""): lambda x: ((x > -3) & (x < 3)) / x.dtype.type(6),
}
VALUES = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "hard_swish": lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "hard_sigmoid": lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6,
}


@DTYPES
@pytest.mark.parametrize(("name", "rule"), SLOPES)
def test_slopes_at_and_around_the_kinks(name: str, rule: str, dtype: str) -> None:
    x = around_kinks(dtype)
    assert same_bytes(slope(getattr(ops, name), x, rule), SLOPES[name, rule](x).astype(dtype))


@DTYPES
@pytest.mark.parametrize("name", VALUES)
def test_values_at_and_around_the_kinks(name: str, dtype: str) -> None:
    x = around_kinks(dtype)
    y, _ = getattr(ops, name).forward(x, needs=(False,))
    assert y.dtype == dtype
    assert np.array_equal(y, VALUES[name](x))


@DTYPES
def test_hard_swish_is_its_formula_in_that_order(dtype: str) -> None:
    x = np.random.default_rng(0).uniform(-6, 6, (50, 401)).astype(dtype)
    y, _ = ops.hard_swish.forward(x, needs=(False,))
    assert same_bytes(y, x * np.clip(x + 3, 0, 6) / 6)
    assert not same_bytes(y, x * (np.clip(x + 3, 0, 6) / 6))  # the order can be told


@DTYPES
def test_exact_rules_of_relu6_give_the_same_gradient(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([around_kinks(dtype), rng.uniform(-3, 9, (500, 9)).astype(dtype)])
    gy = rng.standard_normal(x.shape).astype(dtype)
    codes, band, output = (
        ops.relu6.backward(ops.relu6.forward(x, needs=(True,), rule=rule)[1], gy, needs=(True,))[0]
        for rule in ("codes", "band", "output")
    )
    assert same_bytes(band, codes)
    assert np.array_equal(output, codes)  # but zeros have no sign there


@DTYPES
@pytest.mark.parametrize("op", [ops.relu6, ops.hard_swish], ids=lambda op: op.name)
def test_sign_rule_is_gy_where_x_is_not_negative(op: Op, dtype: str) -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([around_kinks(dtype), rng.uniform(-8, 8, (500, 9)).astype(dtype)])
    gy = rng.standard_normal(x.shape).astype(dtype)
    (gx,) = op.backward(op.forward(x, needs=(True,), rule="sign")[1], gy, needs=(True,))
    assert same_bytes(gx, gy * (x >= 0))


@DTYPES
def test_how_far_the_sign_rule_is_from_the_slope(dtype: str) -> None:
    x = np.concatenate([around_kinks(dtype), np.linspace(-8, 8, 9000, dtype=dtype).reshape(-1, 9)])
    swish = abs(slope(ops.hard_swish, x, "sign") - slope(ops.hard_swish, x, "exact"))
    assert swish.max() == 0.5  # reached on both sides of 0 and of the kinks
    assert not swish[(x <= -3) | (x >= 3)].any()
    relu6 = slope(ops.relu6, x, "sign") != slope(ops.relu6, x, "codes")
    assert np.array_equal(relu6, (x == 0) | (x >= 6))


@pytest.mark.parametrize(("dtype", "worst"), [("float32", 1.3e-4), ("float64", 5e-9)])
def test_the_slope_of_hard_swish_from_its_output(dtype: str, worst: float) -> None:
    """Off by a few roundings, but near x = -3/2, where the root magnifies the rounding of y; see the docstring."""
    steps = np.arange(-18000, 18000)
    near = -1.5 * (1 + steps * np.finfo(dtype).eps)  # neighbours in that dtype
    wider = -1.5 + steps * 1e-7
    x = np.concatenate([around_kinks(dtype), np.concatenate([near, wider, steps / 6000]).astype(dtype).reshape(-1, 9)])
    error = abs(slope(ops.hard_swish, x, "output") - hard_swish_slope(x.astype("float64")))
    assert 0 < error.max() <= worst
    far = abs(x + 1.5) > 0.25  # there |s| >= 1/12; s^2 = r / 36, and r is off by 3 roundings of 9 + 24 |y| <= 81
    assert error[far].max() <= 3 * 81 / (72 / 12) * np.finfo(dtype).eps / 2


@DTYPES
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_select_the_level_of_the_interval(bits: int, dtype: str) -> None:
    borders, levels = hard_swish_levels(bits)
    limits = np.array(borders, dtype)
    x = np.concatenate([np.repeat(limits, 9), np.random.default_rng(6).uniform(-5, 5, 900).astype(dtype)]).reshape(
        -1, 9
    )
    assert (len(borders), len(levels)) == (2**bits - 1, 2**bits)
    assert same_bytes(
        slope(ops.hard_swish, x, f"few{bits}"), np.array(levels, dtype)[np.searchsorted(limits, x, "right")]
    )


def test_sign_is_the_nearest_two_valued_slope() -> None:
    """Given two levels, the nearest function takes the nearer one everywhere; none beats 0 and 1."""
    for reach in (3, 5):
        x = (np.arange(6000) + 0.5) / 3000 * reach - reach  # midpoints: no bias at the jump
        h = hard_swish_slope(x)
        sign = np.mean((h - (x >= 0)) ** 2)
        levels = np.linspace(-0.5, 1.5, 41)
        errors = {(a, b): np.mean(np.minimum((h - a) ** 2, (h - b) ** 2)) for a in levels for b in levels}
        a, b = min(errors, key=errors.__getitem__)
        assert sorted((abs(a).round(12), abs(b).round(12))) == [0, 1]
        assert sign == pytest.approx(errors[a, b], rel=1e-12)  # the same sum of the same squares


MASKS = {
    ("relu", ""): lambda x: x > 0,
    ("relu6", "band"): lambda x: (x > 0) & (x < 6),
    ("relu6", "sign"): lambda x: x >= 0,
    ("hard_swish", "sign"): lambda x: x >= 0,
    ("hard_sigmoid", ""): lambda x: (x > -3) & (x < 3),
}


@pytest.mark.parametrize("shape", [(3, 7, 7, 5), (1, 1, 1, 3), (2, 4, 4, 8), (13, 11)])
@pytest.mark.parametrize(("name", "rule"), MASKS)
def test_masks_are_packed_along_positions(name: str, rule: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).integers(-5, 9, shape).astype("float32")
    _, saved = getattr(ops, name).forward(x, needs=(True,), rule=rule)
    bits = MASKS[name, rule](x).reshape(-1, shape[-1])
    assert same_bytes(saved["mask"], np.packbits(bits, axis=0, bitorder="little"))


def test_relu6_codes_are_0_1_2() -> None:
    x = np.random.default_rng(4).integers(-5, 9, (3, 7, 7, 5)).astype("float32")
    _, saved = ops.relu6.forward(x, needs=(True,), rule="codes")
    assert np.array_equal(unpack(saved["codes"], 2, x.shape), np.where(x <= 0, 0, np.where(x >= 6, 2, 1)))


def test_dropout_lets_a_share_through_and_repeats_by_seed() -> None:
    x = np.ones((100, 1000), "float32")
    runs = [ops.dropout.forward(x, attrs={"p": 0.2, "seed": s}, needs=(True,))[0] for s in (1, 1, 2)]
    assert same_bytes(runs[0], runs[1])
    assert not same_bytes(runs[0], runs[2])
    assert set(np.unique(runs[0])) == {0, np.float32(1 / (1 - 0.2))}
    assert abs((runs[0] > 0).mean() - 0.8) < 6 * np.sqrt(0.2 * 0.8 / x.size)  # six standard deviations
    everything, _ = ops.dropout.forward(x, attrs={"p": 0.0, "seed": 1}, needs=(True,))
    assert same_bytes(everything, x)


@DTYPES
def test_batch_norm_updates_running_statistics_of_any_strides(dtype: str) -> None:
    x = np.random.default_rng(5).standard_normal((4, 3, 3, 2)).astype(dtype)
    room = np.ones((4, 5), dtype)
    mean, var = room[::2, 1], room[1::2, 1]
    ops.batch_norm.forward(x, mean + 1, mean + 2, mean, var, attrs={"momentum": 0.25}, needs=(False,) * 5)
    rows = x.reshape(-1, 2).astype("float64")
    u = np.finfo(dtype).eps / 2  # 8 roundings to that dtype on numbers below 4
    assert np.allclose(mean, 0.75 + 0.25 * rows.mean(axis=0), rtol=0, atol=32 * u)
    assert np.allclose(var, 0.75 + 0.25 * rows.var(axis=0, ddof=1), rtol=0, atol=32 * u)
    assert (np.delete(room, 1, axis=1) == 1).all()
