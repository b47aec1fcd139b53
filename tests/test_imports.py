"""Imports point down: a module may import from its own layer and from those below, inside functions as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import minitl

LAYERS = [  # ground floor first; a package is one layer, and so are modules that stand on one line
    "errors",
    "checks files version",
    "arrays",
    "bits pixels",
    "stamps",
    "kernels",
    "saved",
    "ops",
    "parameters",
    "records",
    "fused",
    "gradients",
    "tape shadow carried",
    "layers",
    "statistics",
    "segment",
    "blocks",
    "sides",
    "networks",
    "methods",
    "step",
    "devices",
    "accounting",
    "data",
    "training",
    "export",
    "reproduce",
    "oracle",
    "bench",
    "__init__",
    "verbs",
    "cli",
    "__main__",
]
FLOOR = {module: floor for floor, modules in enumerate(LAYERS) for module in modules.split()}


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, top-level module of minitl) for everything that `source`, in that package, imports from minitl."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _minitl(node.lineno, alias.name.split("."), ())
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: len(package) + 1 - node.level]) if node.level else []
            names = [*above, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield from _minitl(node.lineno, names, (alias.name,))


def _minitl(line: int, names: list[str], last: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    if names[0] == "minitl":
        modules = [*names[1:], *(name for name in last if name in FLOOR)]
        yield line, modules[0] if modules else "__init__"


def violations(sources: Mapping[str, str]) -> list[str]:
    """What is wrong with the modules of minitl, given their source by path within the package."""
    wrong = []
    for path, source in sources.items():
        parts = Path(path).with_suffix("").parts
        if parts[0] not in FLOOR:
            wrong.append(f"{path}: {parts[0]} has no layer: add it to LAYERS")
            continue
        for line, target in imported(source, ("minitl", *parts[:-1])):
            if target not in FLOOR:
                wrong.append(f"{path}:{line} imports {target}, which has no layer")
            elif FLOOR[target] > FLOOR[parts[0]]:
                wrong.append(f"{path}:{line} imports {target}, which stands above {parts[0]}")
    return wrong


NAMED = """
import minitl
import re
names = [*minitl.__all__, *re.findall(r"`minitl[.](\\w+)`", minitl.__doc__)]
assert len(names) > 12, names
for name in names:
    assert name in dir(minitl), name
    getattr(minitl, name)
"""


def test_what_the_package_names_is_there_and_completed() -> None:
    subprocess.run([sys.executable, "-c", NAMED], check=True)


def test_imports_point_down() -> None:
    root = Path(minitl.__file__).parent
    sources = {str(p.relative_to(root)): p.read_text("utf-8") for p in sorted(root.rglob("*.py"))}
    assert len(sources) > 20
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops/activations/relu.py", "from minitl.tape import Tape"),
        ("ops/activations/relu.py", "def f():\n    from minitl.tape import Tape"),
        ("ops/activations/relu.py", "import minitl.layers as l"),
        ("ops/activations/relu.py", "from minitl import blocks"),
        ("ops/activations/relu.py", "import minitl"),
        ("ops/activations/relu.py", "from minitl import MinitlError"),
        ("ops/activations/relu.py", "from ...tape import Tape"),
        ("ops/activations/relu.py", "from ... import tape"),
        ("ops/activations/relu.py", "from minitl.attic import old"),
        ("errors.py", "from minitl.arrays import Array"),
        ("attic.py", ""),
    ],
)
def test_an_import_that_points_up_is_found(path: str, source: str) -> None:
    assert len(violations({path: source})) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from minitl.kernels import depthwise",
        "from minitl import kernels",
        "from . import window",
        "from .op import Op",
        "from ..saved import Saved",
        "import numpy",
        "from numpy import tape",
    ],
)
def test_an_import_that_points_down_is_not(source: str) -> None:
    assert violations({"ops/activations/relu.py": source}) == []
