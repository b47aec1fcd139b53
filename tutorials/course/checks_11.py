"""Checks of tutorial 11, the oracle."""

from __future__ import annotations

from functools import cache
from typing import Any

import minitl.oracle
import numpy as np

from course.attempt import Attempt
from course.case import Array, Case
from course.exercise import exercise
from course.pieces import hard_swish, hard_swish_slope, pack


@cache
def oracle_case() -> minitl.oracle.Case:
    """The oracle's own."""
    return next(minitl.oracle.cases("hard_swish-exact"))


@exercise(
    "11a",
    hints=(
        "Three regions: 0 up to -3, the kink included; 1 from 3 on, the kink included; between them the slope of "
        "x (x + 3) / 6.",
        "np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)), times gy, in the dtype of x.",
    ),
)
def exact_backward(case: Case, hard_swish_exact_backward: Attempt) -> None:
    """Kinks included, and then the oracle itself."""
    x = case.rng.permutation(
        np.concatenate([case.uniform(-6, 6, 40), np.array([-3, -3, 3, 3, 0], case.dtype)])
    )
    gy, exact = case.normal(45), hard_swish_slope(x)
    middle = ((2 * x + 3) / 6).astype(x.dtype)
    case.same(
        "gx",
        hard_swish_exact_backward(x, gy),
        gy * exact,
        {
            "the product rule is forgotten: relu6(x + 3) / 6 is only the one half of the derivative of a product.": (
                lambda: gy * (np.clip(x + 3, 0, 6) / 6)
            ),
            "the regions are forgotten: (2 x + 3) / 6 holds between -3 and 3 only.": lambda: (
                gy * middle
            ),
            "at the kinks -3 and 3 the slope is that of the outer side: 0 and 1.": (
                lambda: gy * np.where(abs(x) == 3, middle, exact)
            ),
            "that is MobileTL's sign rule; asked for is the exact slope.": lambda: gy * (x >= 0),
            "that is the slope; backward multiplies it by gy.": lambda: exact,
        },
        at={"x": x, "gy": gy},
    )
    given = oracle_case()
    oracle_x = given.inputs["input.x"]
    got = hard_swish_exact_backward(oracle_x, given.inputs["grad_output"])
    dtype = getattr(got, "dtype", type(got).__name__)
    case.need(dtype == oracle_x.dtype, f"gx is {dtype}, x is {oracle_x.dtype}.")
    report = given.compare({"output": hard_swish(oracle_x), "grad_input.x": got})
    case.need(report.ok, f"The oracle says:\n{report}")


@exercise(
    "11b",
    hints=(
        "Reshape to (M, C) and fill M up with zeros to a multiple of 4. Then four rows at a time become one: shift "
        "the second by 2, the third by 4, the last by 6 bits.",
        "flat = np.concatenate([flat, zeros]).reshape(-1, 4, C); the bytes are flat[:, 0] | flat[:, 1] << 2 | "
        "flat[:, 2] << 4 | flat[:, 3] << 6.",
    ),
)
def packed_codes(case: Case, pack_codes: Attempt) -> None:
    """Position counts of every remainder."""
    for shape in (case.map_shape(), (2, 3, 3, 4), (1, 5, 3, 3), (1, 3, 3, 5), (1, 2, 2, 3)):
        codes = case.rng.integers(0, 4, shape).astype(np.uint8)
        right = pack(codes, 2)
        got = pack_codes(codes)
        flat = codes.reshape(-1, shape[-1])
        case.same(
            "the packed map",
            got,
            right,
            {sentence: lambda m=make, f=flat: m(f) for sentence, make in PACKED.items()},
        )


def _bytes(flat: Array, shifts: tuple[int, ...]) -> Array:
    filled = np.concatenate([flat, np.zeros((-len(flat) % 4, flat.shape[1]), np.uint8)])
    parts = filled.reshape(-1, 4, flat.shape[1])
    return np.bitwise_or.reduce([parts[:, i] << shift for i, shift in enumerate(shifts)]).astype(
        np.uint8
    )


PACKED: dict[str, Any] = {
    "the first position belongs in the lowest bits; yours has it in the highest.": lambda f: _bytes(
        f, (6, 4, 2, 0)
    ),
    "a code takes 2 bits: shift by 0, 2, 4 and 6.": lambda f: _bytes(f, (0, 1, 2, 3)),
    "neighbours in a byte should be neighbouring positions of one channel; yours are neighbouring channels.": (
        lambda f: _bytes(f.reshape(-1, 1), (0, 2, 4, 6)).ravel()
    ),
    "the positions left over are lost: fill the last byte up with zeros.": lambda f: _bytes(
        f[: len(f) // 4 * 4], (0, 2, 4, 6)
    ),
}


@exercise(
    "11c",
    hints=(
        "Ask what is right rather than what is wrong: there, of the shape, and `abs(got - expected) <= bound` "
        "everywhere. NaN is not <= anything, so it fails by itself.",
        "right = name in got and got[name].shape == expected[name].shape and "
        "(abs(got[name] - expected[name]) <= bound[name]).all()",
    ),
)
def names_of_wrong_tensors(case: Case, wrong_tensors: Attempt) -> None:
    """One tensor for each way of being wrong, and for each way of being wrongly accused."""
    names = [
        f"{a}.{b}" for a in ("grad", "kept", "out") for b in ("expand", "project", "shift", "x")
    ]
    names = [names[i] for i in case.rng.permutation(len(names))]
    expected = {name: case.rng.standard_normal((3, 5)) for name in names}
    bound = {name: 10.0 ** case.rng.uniform(-9, -1, (3, 5)) for name in names}
    got = {
        name: expected[name] + 0.9 * bound[name] * case.rng.choice([-1, 1], (3, 5))
        for name in names
    }
    small, low, nan, gone, square, zero, *_ = names
    at = np.unravel_index(bound[small].argmin(), (3, 5))
    got[small][at] = expected[small][at] + 3 * bound[small][at]
    got[low][2, 1] = expected[low][2, 1] - 2 * bound[low][2, 1]
    got[nan][1, 1] = np.nan
    del got[gone]
    got[square] = got[square].T.copy()
    bound[zero][0], got[zero][0] = 0, expected[zero][0]
    right = sorted([small, low, nan, gone, square])
    given = ({n: a.copy() for n, a in values.items()} for values in (expected, bound, got))
    answer = wrong_tensors(*given)
    case.need(isinstance(answer, list | tuple), "It should return a list of names.")
    answer = list(answer)
    there = [name for name in names if name in got]
    close = [n for n in there if got[n].shape != (3, 5) or not np.allclose(got[n], expected[n])]
    case.need(
        set(answer) - {gone} != set(close) - {gone},
        "It goes by one tolerance for all, as np.allclose does; each element has a bound of its own.",
    )
    case.need(
        zero not in answer, f"{zero} is right: where the bound is 0, an error of 0 is within it."
    )
    case.need(gone in answer, f"{gone} is missing from got, and so wrong.")
    case.need(square in answer, f"{square} has another shape, and so is wrong.")
    case.need(
        nan in answer, f"{nan} holds a nan: `error > bound` is False for it. Ask for `<=` instead."
    )
    case.need(
        small in answer,
        f"{small} is wrong in the one element with the smallest bound: compare element by element.",
    )
    case.need(
        low in answer, f"{low} is wrong by being too small: take the absolute value of the error."
    )
    extra = [name for name in answer if name not in right]
    case.need(not extra, f"{', '.join(map(str, extra))} is right: every error is within its bound.")
    case.need(answer == right, "The right names, but not sorted, or some twice.")
