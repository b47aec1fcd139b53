"""The oracle discriminates: each of many wrong implementations is caught, and the correct one is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from zlib import crc32

import more_mutants
import numpy as np
import pytest
from mutants import MUTANTS, Correct
from named import NAMED

import minitl.oracle.compare
from minitl import oracle
from minitl.ops.activations.activation import ACTIVATIONS
from minitl.oracle import mechanisms, updates
from minitl.oracle.mistakes.activations import by_sign
from minitl.oracle.truth import DEEP

LEAST = 100  # mutants

Row = tuple[str, str, str]  # mistake, case, likely cause


@cache
def cases(layout: str, dtype: str) -> list[Any]:
    return [e.case(layout, dtype) for e in oracle.entries() if e.op not in (*updates.ATTRS, *mechanisms.ATTRS)]


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    """A line per mutant and kind of case, printed at the end."""
    lines: list[Row] = []
    yield lines
    print(f"\n{len(lines)} mistakes caught, {sum(bool(cause) for *_, cause in lines)} of them named")
    for mistake, case, cause in lines:
        print(f"  {mistake}  |  {case}  |  {cause}")


@pytest.mark.parametrize(("layout", "dtype"), [("nhwc", "float32"), ("nhwc", "float64"), ("nchw", "float32")])
def test_the_correct_implementation_passes(layout: str, dtype: str) -> None:
    for case in cases(layout, dtype):
        case.check(Correct(case).answer())


def test_no_half_precision_result_may_be_half_off() -> None:
    for case in cases("nhwc", "float32"):
        for name, expected in case.expected.items():
            bound = case.tolerance(name, "float16")
            if bound is not None:
                assert (abs(expected) / 2 > bound).any(), (case.name, name)


def test_norm_scales_have_both_signs() -> None:
    for case in cases("nhwc", "float32"):
        for name, tensor in case.inputs.items():
            if name.endswith("norm.weight") or (case.op.endswith("_norm") and name == "param.weight"):
                assert {-1, 1} == set(np.sign(tensor)), (case.name, name)


def test_there_are_enough_mutants() -> None:
    assert more_mutants.__doc__
    assert len(MUTANTS) >= LEAST
    assert NAMED.keys() <= MUTANTS.keys()


def test_no_result_may_be_a_fiftieth_off_in_every_case() -> None:
    """Bounds add up along a block; for each tensor of each method there is a case in which they stay small."""
    sharp: dict[tuple[str, str, str], bool] = {}
    for case in cases("nhwc", "float32"):
        for name, expected in case.expected.items():
            vanishes = case.op == "network" and abs(expected).max() < 1e-12  # 0 but for rounding
            if expected.dtype.kind == "f" and not vanishes:
                caught = (abs(expected) / 50 > case.tolerance(name, "float32")).any()
                key = case.op, case.method, name
                sharp[key] = sharp.get(key, False) or bool(caught)
    assert all(sharp.values()), [key for key, caught in sharp.items() if not caught]


@pytest.mark.parametrize("mistake", MUTANTS)
def test_mutant_is_caught_and_named(mistake: str, rows: list[Row]) -> None:
    """A cause, where one is given, is the right one; nearly always there is one.

    This is one case per mistake, of a single op or of a block; `score.py` tries every mistake in every case.
    """
    among = [case for case in cases("nhwc", "float32") if case.op not in DEEP]
    blocks = [case for case in cases("nhwc", "float32") if case.op == "irb"]
    parts = (among, blocks) if crc32(mistake.encode()) % 2 else (blocks, among)
    report = first_caught(MUTANTS[mistake], parts[0]) or first_caught(MUTANTS[mistake], parts[1] + networks())
    assert report, f"no case catches: {mistake}"
    rows.append((mistake, report.case, likely_cause(report)))
    if mistake in NAMED:
        assert not [line.cause for line in report.lines if line.cause and not re.search(NAMED[mistake], line.cause)]


def networks() -> list[Any]:
    return [case for case in cases("nhwc", "float32") if case.op in ("network", "residual")]


GRADIENTS = (", forward", " in the gradient of x", " in the gradient of the weights")
EVERY = (  # mistakes, and a case of which they are named in every tensor that is wrong
    ("hard-swish takes a rounded 1/6 (a float16 constant)", "hard_swish-exact"),
    ("hard-swish slope takes a rounded 1/6 (a float16 constant)", "hard_swish-exact"),
    ("0.1667 for 1/6", "hard_swish-exact"),
    ("0.1667 for 1/6", "hard_sigmoid-exact"),
    ("hard-swish slope (2x + 3) / 6 at -3 too", "hard_swish-exact"),
    ("hard-swish slope (2x + 3) / 6 at 3 too", "hard_swish-exact"),
    ("relu slope 1 at 0", "relu-exact"),
    ("the sign rule's mask is x >= -3", "hard_swish-sign"),
    ("the sign rule's mask is x >= -3", "irb-mobiletl-hard_swish-k3-s1"),
    ("the sign rule's mask is x > -3", "hard_swish-sign"),
    ("the sign rule's mask is x >= -1.5", "hard_swish-sign"),
    ("the sign rule's mask is x >= 3", "hard_swish-sign"),
    ("the sign rule's mask is x >= -3", "relu6-sign"),
    ("the sign rule's mask is x > -3", "silu-sign"),
    ("the sign rule's mask is y >= 0", "hard_swish-sign"),
    ("the sign rule's mask is y >= 0", "irb-mobiletl-hard_swish-k5-s2-se"),
    *((f"the last group missing{where}", f"grouped_conv-k3-s{stride}") for where in GRADIENTS for stride in (1, 2)),
    ("the last group missing in the gradient of the weights", "standardised_conv-k3-s2"),
    ("the first group missing in both gradients", "grouped_conv-k3-s2"),
    ("normalised by the unbiased variance, and its own derivative", "batch_norm-v2"),
    ("normalised by the unbiased variance, and its own derivative", "irb-mobiletl-hard_swish-k3-s1-se"),
    ("eps outside the square root, and its own derivative", "batch_norm-v3"),
    ("the mean of gy forgotten in a batch norm's gradient of x", "batch_norm-v2"),
    ("the variance in place of the deviation in a norm", "frozen_norm-v3"),
    ("the running mean not subtracted", "frozen_norm-v3"),
    ("momentum of the wrong sign", "batch_norm-v3"),
    ("softmax before the loss", "cross_entropy"),
    ("labels counted from 1", "cross_entropy"),
)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(("mistake", "name"), EVERY)
def test_mistake_is_named_in_every_wrong_tensor(mistake: str, name: str, layout: str) -> None:
    (case,) = oracle.cases(name, layout=layout)
    case.check(Correct(case).answer())
    wrong = [line for line in case.compare(MUTANTS[mistake](case).answer()).lines if not line.ok]
    assert wrong
    assert all(re.search(NAMED[mistake], line.cause) for line in wrong), wrong


def test_the_rules_by_which_the_mask_is_the_slope_are_found() -> None:
    """ReLU's own mask is not: it is strict."""
    found = {(name, rule) for name, op in ACTIVATIONS.items() for rule in op.rules if by_sign(name, rule)}
    of_hard_swish = {("hard_swish", rule) for rule in ("sign", "few1", "output-sign")}
    assert found == {*of_hard_swish, ("relu6", "sign"), ("silu", "sign")}


def test_an_exact_slope_is_not_called_low_precision() -> None:
    (case,) = oracle.cases("hard_swish-sign")
    answer = MUTANTS["exact slope where the sign rule is asked for"](case).answer()
    (line,) = (line for line in case.compare(answer).lines if not line.ok)
    assert line.cause == "the gradient of rule exact or the gradient of rule output"


def test_what_rounding_left_of_a_zero_is_not_called_low_precision() -> None:
    (case,) = oracle.cases("irb-mobiletl-relu6-k7-s2")
    report = case.compare(MUTANTS["the sign rule's mask is x >= -3"](case).answer())
    assert not report.ok
    assert "low precision" not in str(report)


ENDS = (
    "eps 10 times too large",
    "update in the wrong direction",
    "residual gradient doubled",
    "sigmoid for hard-sigmoid",
)


@pytest.mark.parametrize("mistake", ENDS)
def test_mistakes_are_named_in_a_whole_network(mistake: str) -> None:
    report = first_caught(MUTANTS[mistake], networks()[-2:-1])  # three blocks, all tuned
    assert report
    causes = {line.cause for line in report.lines if line.cause}
    assert causes
    assert all(re.search(NAMED[mistake], cause) for cause in causes)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        (
            "irb-mobiletl-relu-k5-s2-se",
            "weight gradient averaged over the batch",
            "pool's gradient not divided by the area",
        ),
        ("irb-mobiletl-exact-hard_swish-k5-s2-se", "sigmoid for hard-sigmoid", "eps 100 times too large"),
    ],
)
def test_two_mistakes_are_not_called_a_third(name: str, first: str, second: str) -> None:
    """Both were called a gradient halved, which one tensor confirmed and most others denied."""
    (case,) = (case for case in cases("nhwc", "float32") if case.name == name)
    both = type("Both", (MUTANTS[first], MUTANTS[second]), {})
    report = case.compare(both(case).answer())
    assert not report.ok
    named = [line.cause for line in report.lines if line.cause]
    assert all(re.search(f"{NAMED[first]}|{NAMED[second]}", cause) for cause in named)


def test_a_kept_value_that_no_mistake_is_tried_for_is_not_called_two_mistakes() -> None:
    """It follows from the mistake that the other tensors name."""
    (case,) = (case for case in cases("nhwc", "float32") if case.name == "irb-mobiletl-hard_swish-k5-s2-se")
    report = case.compare(MUTANTS["padding off by one"](case).answer())
    wrong = [line for line in report.lines if not line.ok]
    assert any(line.tensor.startswith("kept.") for line in wrong)
    assert minitl.oracle.compare.UNEXPLAINED not in {line.note for line in wrong}


def test_nine_of_ten_mistakes_are_named(rows: list[Row]) -> None:
    named = [(mistake, cause) for mistake, _, cause in rows if mistake in NAMED]
    if len(named) < len(NAMED):
        pytest.skip("run with the tests above")
    assert sum(bool(cause) for _, cause in named) >= 0.9 * len(named), [m for m, cause in named if not cause]


def first_caught(mutant: type[Correct], among: list[Any]) -> oracle.Report | None:
    """The report on the first case that the mutant fails, beginning somewhere else for each mutant."""
    begin = crc32(mutant.__qualname__.encode()) % len(among)
    with np.errstate(all="ignore"):
        for case in among[begin:] + among[:begin]:
            answer = mutant(case).answer()
            if differs(case, answer):
                return case.compare(answer)
    return None


def differs(case: Any, answer: dict[str, Any]) -> bool:
    """Whether a check would fail, without asking for the cause."""
    judged = minitl.oracle.compare.judge(case, answer)
    return any(not line.ok for line in judged)


def likely_cause(report: oracle.Report) -> str:
    """The first cause that the report names."""
    return next((f"{line.tensor}: {line.cause}" for line in report.lines if line.cause), "")
