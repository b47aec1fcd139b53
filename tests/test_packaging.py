"""What is installed and what is distributed: every file the package reads, and the tests with all they need."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import minitl

ROOT = Path(__file__).parents[1]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_data_file_of_the_package_is_installed() -> None:
    patterns = ABOUT["tool"]["setuptools"]["package-data"]["minitl"]
    package = Path(minitl.__file__).parent
    files = [path.relative_to(package) for path in package.rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix not in (".py", ".pyc", ".nbi", ".nbc")]
    assert len(data) > 5
    assert [str(path) for path in data if not any(fnmatch(str(path), pattern) for pattern in patterns)] == []
    for pattern in patterns:
        assert any(fnmatch(str(path), pattern) for path in data), f"{pattern} matches nothing"


def test_the_source_distribution_has_what_its_tests_need() -> None:
    manifest = ROOT / "MANIFEST.in"
    if not manifest.exists():
        pytest.skip("no source distribution is made from here")
    lines = manifest.read_text("utf-8").split("\n")
    for folder in ("tests", "tutorials"):
        assert f"graft {folder}" in lines
    for file in ("Makefile", *ABOUT["project"]["license-files"], ABOUT["project"]["readme"]):
        assert (ROOT / file).is_file()
    assert "include Makefile" in lines


def test_there_is_one_version() -> None:
    assert ABOUT["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", minitl.__version__)
    assert ABOUT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "minitl.version.VERSION"}
