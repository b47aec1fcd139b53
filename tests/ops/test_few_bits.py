"""The few-bit slopes of Hard-Swish: levels and error by independent integration, and no better borders."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from checks import same_bytes
from hypothesis import given
from hypothesis import strategies as st

from minitl import ops
from minitl.ops.activations.few_bits import REACH, hard_swish_levels

BITS = (1, 2, 3, 4)
ALL_BITS = pytest.mark.parametrize("bits", BITS)
ROUNDING = 1e-13  # 40 pieces of numbers below 25, a few roundings of 1.1e-16 each


def pieces(borders: tuple[float, ...]) -> list[tuple[float, float]]:
    """The range cut at the borders and at the kinks of h', which is linear on each piece."""
    edges = sorted({-REACH, *borders, -3.0, 3.0, REACH})
    return list(pairwise(edges))


def slope(x: float) -> float:
    return 0.0 if x < -3 else 1.0 if x > 3 else (2 * x + 3) / 6


def integral(left: float, right: float, level: float, power: int) -> float:
    """Of (h' - level)^power by Gauss's rule with two nodes: exact up to the third degree within a piece."""
    middle, half = (left + right) / 2, (right - left) / 2
    return half * sum((slope(middle + node * half) - level) ** power for node in (-(3**-0.5), 3**-0.5))


def error(borders: tuple[float, ...]) -> float:
    """Squared error of these borders with the best level, the mean of h', between each two."""
    total = 0.0
    for left, right in zip((-REACH, *borders), (*borders, REACH), strict=True):
        inside = [(a, b) for a, b in pieces(borders) if left <= a and b <= right]
        mean = math.fsum(integral(a, b, 0, 1) for a, b in inside) / (right - left)
        total += math.fsum(integral(a, b, mean, 2) for a, b in inside)
    return total


def test_one_bit_is_exactly_the_sign_rule() -> None:
    levels = hard_swish_levels(1)
    assert (levels.borders, levels.levels) == ((0.0,), (0.0, 1.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_bit_has_the_gradient_and_the_bytes_of_the_sign_rule(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 7, 3, 11)).astype(dtype) * 3
    x[0, 0, 0] = [0.0, -0.0, 3, -3, -1.5, 1e-38, -1e-38, 50, -50, 2.9999, -2.9999]
    gy = rng.standard_normal(x.shape).astype(dtype)
    kept, gradients = [], []
    for rule in ("sign", "few1"):
        y, saved = ops.hard_swish.forward(x, needs=(True,), rule=rule)
        kept += [buffer.array for buffer in saved.buffers.values()]
        gradients += [y, *ops.hard_swish.backward(saved, gy, needs=(True,))]
    assert same_bytes(*kept)
    assert same_bytes(*gradients[::2])
    assert same_bytes(*gradients[1::2])


@ALL_BITS
def test_levels_are_the_means_of_the_slope_between_sorted_borders(bits: int) -> None:
    borders, levels = hard_swish_levels(bits)
    assert list(borders) == sorted(set(borders))
    assert borders[0] > -REACH
    assert borders[-1] < REACH
    for left, right, level in zip((-REACH, *borders), (*borders, REACH), levels, strict=True):
        inside = [(a, b) for a, b in pieces(borders) if left <= a and b <= right]
        assert abs(math.fsum(integral(a, b, level, 1) for a, b in inside)) <= ROUNDING


def test_errors_by_hand_and_less_with_every_bit() -> None:
    """Levels 0 and 1 outside (-3, 3), and k equal steps inside: k (1/3)^2 (6/k)^3 / 12 = 2 / k^2. One bit: 2 x 1/4."""
    errors = [error(hard_swish_levels(bits).borders) for bits in BITS]
    assert errors == sorted(errors, reverse=True)
    for bits, by_hand in ((1, 1 / 2), (3, 2 / 6**2), (4, 2 / 14**2)):
        assert abs(errors[bits - 1] - by_hand) <= ROUNDING
    assert f"{errors[2]:.4f}" == "0.0556"


@ALL_BITS
def test_borders_are_where_theory_puts_them(bits: int) -> None:
    """At a jump of h', or where h' is the middle of the two levels; and all of it symmetric about (0, 1/2)."""
    borders, levels = hard_swish_levels(bits)
    for border, below, above in zip(borders, levels[:-1], levels[1:], strict=True):
        assert abs(border) == 3 or abs(slope(border) - (below + above) / 2) <= ROUNDING
    assert np.abs(np.add(borders, borders[::-1])).max() <= ROUNDING
    assert np.abs(np.add(levels, levels[::-1]) - 1).max() <= ROUNDING


@ALL_BITS
@pytest.mark.parametrize("step", [-0.01, 0.01])
def test_no_border_moved_lowers_the_error(bits: int, step: float) -> None:
    borders, _ = hard_swish_levels(bits)
    least = error(borders)
    for i in range(len(borders)):
        assert error((*borders[:i], borders[i] + step, *borders[i + 1 :])) > least + ROUNDING


@ALL_BITS
@given(data=st.data())
def test_no_other_borders_have_a_lower_error(bits: int, data: st.DataObject) -> None:
    """Anywhere, or in the neighbourhood of the kinks and steps, where good ones lie."""
    place = st.one_of(st.floats(-REACH + 0.01, REACH - 0.01), st.integers(-40, 40).map(lambda n: n / 10))
    count = 2**bits - 1
    borders = tuple(sorted(data.draw(st.lists(place, min_size=count, max_size=count, unique=True))))
    assert error(borders) >= error(hard_swish_levels(bits).borders) - ROUNDING
