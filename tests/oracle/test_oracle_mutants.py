"""The oracle discriminates: each of many wrong implementations is caught, and the correct one is not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from mutants import MUTANTS, Correct

from minitl import oracle

LEAST = 24  # mutants

Row = tuple[str, str, str, str]


@cache
def cases(layout: str, dtype: str) -> list[Any]:
    return list(oracle.cases(layout=layout, dtype=dtype))


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    """A line a mutant, printed at the end."""
    lines: list[Row] = []
    yield lines
    widths = [*(max((len(line[i]) for line in lines), default=0) for i in range(3)), 0]
    print(
        f"\n{len(lines)} mutants caught: the mistake, the first single op and the first block to catch it, likely cause"
    )
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@pytest.mark.parametrize(("layout", "dtype"), [("nhwc", "float32"), ("nhwc", "float64"), ("nchw", "float32")])
def test_the_correct_implementation_passes(layout: str, dtype: str) -> None:
    for case in cases(layout, dtype):
        case.check(Correct(case).answer())


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= LEAST


def test_no_result_may_be_a_fiftieth_off_in_every_case() -> None:
    """Bounds add up along a block; for each tensor of each method there is a case in which they stay small."""
    sharp: dict[tuple[str, str, str], bool] = {}
    for case in cases("nhwc", "float32"):
        for name, expected in case.expected.items():
            if expected.dtype.kind == "f":
                caught = (abs(expected) / 50 > case.tolerance(name, "float32")).any()
                key = case.op, case.method, name
                sharp[key] = sharp.get(key, False) or bool(caught)
    assert all(sharp.values()), [key for key, caught in sharp.items() if not caught]


@pytest.mark.parametrize("mistake", MUTANTS)
def test_mutant_is_caught(mistake: str, rows: list[Row]) -> None:
    mutant, every = MUTANTS[mistake], cases("nhwc", "float32")
    op = first_caught(mutant, [case for case in every if case.op != "irb"])
    block = first_caught(mutant, [case for case in every if case.op == "irb"])
    report = op or block
    assert report, f"no case catches: {mistake}"
    rows.append((mistake, op.case if op else "-", block.case if block else "-", likely_cause(report)))


def first_caught(mutant: type[Correct], among: list[Any]) -> oracle.Report | None:
    """The report on the first case that the mutant fails."""
    with np.errstate(all="ignore"):
        for case in among:
            report = case.compare(mutant(case).answer())
            if not report.ok:
                return report
    return None


def likely_cause(report: oracle.Report) -> str:
    """The first cause that the report names, else the first problem."""
    wrong = [line for line in report.lines if not line.ok]
    named = [line for line in wrong if line.cause]
    return f"{named[0].tensor}: {named[0].cause}" if named else f"({wrong[0].tensor}: {wrong[0].problem})"
