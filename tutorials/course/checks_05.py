"""Checks of tutorial 5, activations in bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from course.attempt import Attempt
from course.case import Case
from course.exercise import exercise
from course.pieces import hard_swish, hard_swish_slope, relu6

REACH = 10.0


def with_ends(case: Case, *special: float) -> Any:
    """Numbers from well below to well above all kinks, the special ones among them."""
    inside = case.uniform(-9, 9, 40)
    return case.rng.permutation(np.concatenate([inside, np.array(special, case.dtype)]))


@exercise(
    "5a",
    hints=(
        "The slope is 1 or 0. Where is it 1, said with y alone? What does y = 0 tell about x, and y = 6?",
        "gy times the booleans `(y > 0) & ...`.",
    ),
)
def output_backward(case: Case, relu6_backward_from_output: Attempt) -> None:
    """Exact where y is between its ends, 0 at both."""
    y, gy = relu6(with_ends(case, 0, 0, 1e-3, 5.999, 6, 6)), case.normal(46)
    got = relu6_backward_from_output(y, gy)
    case.same(
        "gx",
        got,
        gy * ((y > 0) & (y < 6)),
        {
            "where y = 6 the slope is 0: x may be anything from 6 up.": lambda: gy * (y > 0),
            "where y = 0 the slope is 0: x may be anything from 0 down.": lambda: (
                gy * ((y >= 0) & (y < 6))
            ),
            "both ends belong to the flat parts: at y = 0 and at y = 6 the slope is 0.": lambda: gy,
            "this is the slope; backward multiplies it by gy.": lambda: ((y > 0) & (y < 6)).astype(
                y.dtype
            ),
        },
        at={"y": y, "gy": gy},
    )


@exercise(
    "5b",
    hints=(
        "Four cases: y >= 3; the right of the fold; the left of it; and the flat end, where y = 0 and side is False. "
        "Rounding can make 9 + 24 y a little less than 0.",
        "root = np.sqrt(np.maximum(9 + 24 * y, 0)) / 6, then np.where for the sign, for y >= 3, and for y == 0 "
        "on the left.",
    ),
)
def slope_from_output(case: Case, hard_swish_slope_from_output: Attempt) -> None:
    """From y rounded, both ends and the fold included."""
    x = with_ends(case, -5, -3, -1.5, 0, 3, 4)
    side = x >= -1.5
    below = np.array([np.nextafter(case.normal(1)[0] * 0 - 0.375, -1, dtype=case.dtype)])
    y, side = np.concatenate([hard_swish(x), below]), np.append(side, True)
    exact = np.append(hard_swish_slope(x), np.array([0], case.dtype))
    got = hard_swish_slope_from_output(y, side)
    case.need(
        got is None or np.isfinite(np.asarray(got, float)).all(),
        "nan where 9 + 24 y is a little below 0, which rounding of y can make it: take 0 for the root there.",
    )
    root = np.sqrt(np.maximum(9 + 24 * y, 0)) / 6
    high, flat = y >= 3, (y == 0) & ~side
    case.same(
        "slope",
        got,
        exact,
        {
            "on the left of -3/2 it has the wrong sign: h falls there.": lambda: np.where(
                flat, 0, exact * (1 - 2 * (~side))
            ),
            "on the left of -3/2 it has the wrong sign, also on the flat end: h falls or is flat there.": (
                lambda: np.where(high, 1, root)
            ),
            "at x = 0, y is 0 as well, but side is True: the slope there is 1/2.": lambda: np.where(
                y == 0, 0, exact
            ),
            "at y = 3 the slope is 1: x is 3, where the flat part begins.": lambda: np.where(
                y == 3, root, exact
            ),
            "y = 0 with side False means x <= -3: the slope is 0, and your root gives -1/2.": (
                lambda: np.where(flat, -0.5, exact)
            ),
            "where y >= 3 it is x itself: the slope is 1, and your root grows on.": lambda: (
                np.where(high, root, exact)
            ),
            "you gave the root, three times or six times the slope: divide by 6.": lambda: np.where(
                high, 1, np.where(flat, 0, np.where(side, 6 * root, -6 * root))
            ),
        },
        tolerance={"float64": 1e-7, "float32": 5e-4}[case.dtype],
        at={"y": y, "side": side},
    )


@exercise(
    "5c",
    hints=(
        "The integral of h' from a to b is h(b) - h(a). What is a mean over an interval, said with an integral?",
        "h(b) = b * min(max(b + 3, 0), 6) / 6; the lower level is (h(border) - h(-10)) / (border + 10).",
    ),
)
def levels_of_a_border(case: Case, best_levels: Attempt) -> None:
    """Means by integrals, on both sides."""
    for border in case.rng.uniform([-2.9, -8, 3], [2.9, -3, 8]):
        levels_of(case, float(border), best_levels)


def levels_of(case: Case, border: float, best_levels: Attempt) -> None:
    """For one border."""
    h = lambda x: x * min(max(x + 3, 0), 6) / 6  # noqa: E731
    slope = (2 * border + 3) / 6
    low, high = h(border) / (border + REACH), (REACH - h(border)) / (REACH - border)
    parabola = border * (border + 3) / 6
    usual = {
        "these are the middles between the slopes at the two ends; across a kink the mean is another number.": (
            slope / 2,
            (slope + 1) / 2,
        ),
        "the upper one comes first in yours; expected lower, upper.": (high, low),
        "these are the rises of h; a mean is the rise divided by the width.": (
            h(border),
            REACH - h(border),
        ),
        "you integrate from -3 and up to 3 only; the interval is [-10, 10].": (
            h(border) / (border + 3),
            (3 - h(border)) / (3 - border),
        ),
        "h is the parabola only between -3 and 3: it is 0 below, and x above.": (
            parabola / (border + REACH),
            (REACH - parabola) / (REACH - border),
        ),
    }
    names = ("the lower level", "the upper level")
    got = case.results(names, best_levels(border))
    for i, (name, right) in enumerate(zip(names, (low, high), strict=True)):
        likely = {sentence: lambda w=wrong[i]: w for sentence, wrong in usual.items()}
        case.same(f"for the border {border:.3f}, {name}", float(got[i]), right, likely)


@exercise(
    "5d",
    hints=(
        "The mean of h' is 0 on [-10, 0] and 1 on [0, 10]. So (h' - a)^2 = (h' - 0)^2 + a^2 - 2 a (h' - 0), and the "
        "last part integrates to 0.",
        "1/2 is the error of the levels 0 and 1; each level adds 10 times the square of its distance from its mean.",
    ),
)
def any_two_levels(case: Case, two_level_error: Attempt) -> None:
    """A paraboloid with its lowest point 1/2 at (0, 1)."""
    a, c = case.uniform(-1, 2, 6), case.uniform(-1, 2, 6)
    squares = a**2 + (c - 1) ** 2
    got = np.array(
        [float(two_level_error(float(p), float(q))) for p, q in zip(a, c, strict=True)], case.dtype
    )
    case.same(
        "the error",
        got,
        (0.5 + 10 * squares).astype(case.dtype),
        {
            "with a = 0 and c = 1 yours is 0; the sign rule is not exact.": lambda: 10 * squares,
            "outside (-3, 3) a wrong level is wrong too: the intervals are 10 wide, not 3.": (
                lambda: 0.5 + 3 * squares
            ),
            "this is the mean square; the integral is 20 times that.": lambda: (
                (0.5 + 10 * squares) / 20
            ),
            "the mean of h' on [0, 10] is 1: the distance of c is counted from there.": (
                lambda: 0.5 + 10 * (a**2 + c**2)
            ),
        },
        at={"a": a, "c": c},
    )
