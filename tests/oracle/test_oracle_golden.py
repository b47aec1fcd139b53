"""The committed set of cases: generated anew, every tensor has the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minitl import oracle
from minitl.oracle.bounds import PRECISIONS
from minitl.oracle.store import JSON
from minitl.oracle.truth import NO_HALF
from minitl.oracle.updates import ATTRS

GOLDEN = Path(__file__).parent / "golden"
ENTRIES = oracle.entries()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_a_case_has_the_bytes_of_the_committed_one(
    entry: oracle.builtin.Entry, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case = entry.case()
    if request.config.getoption("--overwrite"):
        oracle.save(case, GOLDEN / case.name)
    oracle.save(case, tmp_path)
    got, expected = (json.loads((folder / JSON).read_text()) for folder in (tmp_path, GOLDEN / case.name))
    assert got == expected


def test_the_committed_set_is_the_list_and_small() -> None:
    folders = {path.name for path in GOLDEN.iterdir()}
    assert folders == {entry.name for entry in ENTRIES}
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*.*")) < 4.6e6


def test_the_committed_set_loads() -> None:
    for entry in ENTRIES:
        case = oracle.load(GOLDEN / entry.name)
        assert case.op == entry.op
        without = {"f16"} if case.op in (*NO_HALF, *ATTRS) else set()
        assert set(case.generator["precisions"]) == set(PRECISIONS) - without
