"""The exercises of the course as its files have them: stubs, checks, solutions, mistakes, mutants."""

from __future__ import annotations

import ast
import importlib.util
import linecache
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import render

TUTORIALS = render.TUTORIALS
CHECKED = re.compile(r'^check\("(\w+)", ([\w, ]+)\)$', re.MULTILINE)


@dataclass(frozen=True)
class Checked:
    """A call of `check` in a tutorial: the exercise, its functions, and the code of its cell."""

    exercise: str
    functions: tuple[str, ...]
    code: str

    @property
    def number(self) -> str:
        """The tutorial's, as in its file's name."""
        return f"{int(self.exercise[:-1]):02}"


def checked(path: Path) -> list[Checked]:
    """All calls of `check` in a tutorial."""
    parts = [part for part in render.cells(path.read_text(encoding="utf-8")) if not part.prose]
    return [
        Checked(name, tuple(functions.split(", ")), part.text)
        for part in parts
        for name, functions in CHECKED.findall(part.text)
    ]


ALL = {call.exercise: call for path in TUTORIALS for call in checked(path)}


def functions_of(code: str, names: tuple[str, ...], file: str) -> tuple[Callable[..., Any], ...]:
    """The functions that a piece of code defines."""
    namespace: dict[str, Any] = {}
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    exec(compile(code, file, "exec"), namespace)
    return tuple(namespace[name] for name in names)


def solution(call: Checked) -> str:
    """The imports of a tutorial's solutions, and the functions of one exercise, as they stand."""
    source = (render.HERE / "solutions" / f"{call.number}.py").read_text(encoding="utf-8")
    parts = [
        ast.get_source_segment(source, node) or ""
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.FunctionDef) and node.name in call.functions)
    ]
    return "\n".join(parts) + "\n"


def bare(code: str) -> str:
    """The code without docstrings and comments."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.unparse(tree)


@cache
def mistakes_module(number: str) -> ModuleType:
    """The usual mistakes of a tutorial's exercises."""
    path = Path(__file__).parent / f"mistakes_{number}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mistakes(call: Checked) -> dict[str, str]:
    """The code of each usual mistake of an exercise, by a part of the sentence it deserves.

    In its file a mistake is whole code, or the edits that make it of the solution: pairs (old, new).
    """
    found = mistakes_module(call.number).MISTAKES[call.exercise]
    return {sentence: attempt(call, made) for sentence, made in found.items()}


def also_wrong(call: Checked) -> list[str]:
    """The code of other wrong attempts, which get a sentence that another mistake gets, or none of their own."""
    return [attempt(call, made) for made in getattr(mistakes_module(call.number), "ALSO", {}).get(call.exercise, ())]


def attempt(call: Checked, made: Any) -> str:
    """Whole code, or the solution with edits."""
    code = made if isinstance(made, str) else solution(call)
    for old, new in () if isinstance(made, str) else made:
        assert old in code, f"{call.exercise}: {old!r} is not in the solution:\n{code}"
        code = code.replace(old, new)
    return "import numpy as np\n" + code


def mutants(call: Checked) -> Iterator[tuple[str, str]]:
    """The solution with one thing changed: what was changed, and the code.

    Left out are the changes in lines that the mistakes' file declares to make no difference.
    """
    code = bare(solution(call))
    same = getattr(mistakes_module(call.number), "NO_DIFFERENCE", {}).get(call.exercise, ())
    count = sum(1 for _ in _sites(ast.parse(code)))
    for index in range(count):
        tree = ast.parse(code)
        node, change = list(_sites(tree))[index]
        line = code.splitlines()[node.lineno - 1]
        change()
        mutant = ast.unparse(ast.fix_missing_locations(tree))
        new = [b for a, b in zip(code.splitlines(), mutant.splitlines(), strict=True) if a != b]
        said = f"{line.strip()}  ->  {new[0].strip() if new else '(the same)'}"
        if new and not any(part in said for part in same):
            yield said, mutant


OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
NAMES = {"any": "all", "all": "any", "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}


def _sites(tree: ast.Module) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Every place where something can be changed, with the change."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
            yield node, lambda n=node: setattr(n, "op", OPERATORS[type(n.op)]())
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
            yield node, lambda n=node: n.ops.__setitem__(0, COMPARISONS[type(n.ops[0])]())
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
            yield node, lambda n=node: setattr(n, "op", ast.UAdd())
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node, lambda n=node: setattr(n, "value", n.value * 1.01 if n.value else 0.01)
        if isinstance(node, ast.Name) and node.id in NAMES:
            yield node, lambda n=node: setattr(n, "id", NAMES[n.id])
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node, lambda n=node: setattr(n, "attr", NAMES[n.attr])
        if isinstance(node, ast.Call):
            for word in [w for w in node.keywords if w.arg == "axis"]:
                yield node, lambda n=node, w=word: n.keywords.remove(w)
