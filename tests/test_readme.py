"""The README's Python runs as it stands, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import minitl
from minitl.methods.table import markdown

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    promised = re.search(r"the same bytes, from shapes: ([\d,]+)", README)
    assert promised is not None
    assert capsys.readouterr().out.splitlines()[-1] == promised[1].replace(",", "")


def test_the_table_of_methods_is_that_of_their_fields() -> None:
    assert markdown() in README, "minitl.methods.table.markdown() gives what stands in README.md"
    for line in markdown().splitlines()[2:]:
        name, *told = (cell.strip() for cell in line.strip("|").split("|"))
        assert all(told), f"{name} leaves something out"
        assert name.strip("`") in minitl.methods.METHODS


def test_what_is_imported_when_it_is_first_named() -> None:
    assert next(minitl.oracle.cases("relu-exact")).op == "relu"
    assert minitl.training.__name__ == "minitl.training"
    with pytest.raises(AttributeError, match="'optimisers'"):
        minitl.optimisers  # noqa: B018
