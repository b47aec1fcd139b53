"""The same mistakes made in C: each is caught, and what is said of it is true."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from zlib import crc32

import in_c
import pytest
from named import NAMED
from test_oracle_mutants import differs

from minitl import oracle

needs_compiler = pytest.mark.skipif(shutil.which(in_c.COMPILER) is None, reason="needs a C compiler")
FEW = (
    "*_conv*-k3-s[12]",
    "conv-*",
    "pointwise*",
    "linear*",
    "*_norm-*",
    "hard*",
    "relu*",
    "*excite",
    "cross*",
    "irb-*",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[oracle.Case]]:
    entries = {entry.name: entry for pattern in FEW for entry in oracle.entries(pattern)}
    cases = in_c.covered(list(entries.values()))
    return in_c.compiled(cases, tmp_path_factory.mktemp("c")), cases


@needs_compiler
def test_without_a_mistake_all_is_right(program: tuple[Path, list[oracle.Case]]) -> None:
    for case, answer in in_c.answers(*program, ""):
        case.check(answer)


@needs_compiler
def test_each_mistake_is_caught_and_never_named_wrongly(program: tuple[Path, list[oracle.Case]]) -> None:
    """One case per mistake; `score.py --c` tries every mistake in every case."""
    made = in_c.mistakes(program[0])
    assert set(made) <= NAMED.keys()
    caught = [(mistake, *first_caught(list(in_c.answers(*program, mistake)), mistake)) for mistake in made]
    named = 0
    for mistake, case, answer in sorted(caught, key=lambda one: one[1].name):  # a case's steps are run once
        report = case.compare(answer)
        causes = [line.cause for line in report.lines if line.cause]
        assert not [c for c in causes if not re.search(NAMED[mistake], c)], (mistake, report)
        named += bool(causes)
    assert named >= 0.9 * len(made)


def first_caught(answers: list[tuple[oracle.Case, dict[str, Any]]], mistake: str) -> tuple[oracle.Case, dict[str, Any]]:
    """The first wrong answer, beginning anywhere."""
    begin = crc32(mistake.encode()) % len(answers)
    return next((case, answer) for case, answer in answers[begin:] + answers[:begin] if differs(case, answer))


@needs_compiler
def test_an_unknown_mistake_is_refused(program: tuple[Path, list[oracle.Case]]) -> None:
    assert subprocess.run([program[0], "no such mistake"], check=False).returncode == 2
