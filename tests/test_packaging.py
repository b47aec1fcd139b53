"""What is installed and what is distributed: every file the package reads, and the tests with all they need."""

from __future__ import annotations

import re
import subprocess
import sys
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
    for folder in ("tests", "tutorials", ".ci", ".github"):
        assert f"graft {folder}" in lines
    for file in ("Makefile", *ABOUT["project"]["license-files"], ABOUT["project"]["readme"]):
        assert (ROOT / file).is_file()
    assert "include Makefile" in lines
    assert "include CONTRIBUTING.md CHANGELOG.md CITATION.cff" in lines


def test_the_workflow_runs_the_oldest_and_the_newest_that_is_promised() -> None:
    text, run = ((ROOT / name).read_text("utf-8") for name in (".github/workflows/ci.yml", ".ci/run"))
    assert ".ci/run" in text
    legs = dict(re.findall(r'name: ([\w ]+), python: "[\d.]+", env: "([^"]*)"', text))
    pythons = re.findall(r'python: "([\d.]+)"', text)
    assert f">={pythons[0]}" == ABOUT["project"]["requires-python"]
    assert "NUMBA_DISABLE_JIT=1" in legs["without the JIT"]
    for setting in " ".join(legs.values()).replace("NUMBA_DISABLE_JIT=1", "").split():
        name, _, value = setting.partition("=")
        assert f"{name}:-" in run
        assert re.search(rf"#   {name}={value}\b", run)
    assert (legs["oldest"], legs["newest"], legs["without torch"]) == ("DEPENDENCIES=oldest", "", "TORCH=no")


def test_the_oldest_versions_are_those_of_every_dependency() -> None:
    found = subprocess.run([sys.executable, ROOT / ".ci/oldest"], capture_output=True, text=True, check=True)
    pinned = {line.partition("==")[0] for line in found.stdout.splitlines()}
    asked = [
        *ABOUT["project"]["dependencies"],
        *(d for e in ABOUT["project"]["optional-dependencies"].values() for d in e),
    ]
    names = {re.split(r"[\[>=]", name)[0] for name in asked}
    assert names - pinned == {"minitl", "torch"}


def test_there_is_one_version() -> None:
    assert ABOUT["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", minitl.__version__)
    assert ABOUT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "minitl.version.VERSION"}
