"""Pages, sources and figures say the same, and the tutorials run as they stand."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import render
from course_sources import ALL, TUTORIALS, checked
from scripts import run_script

EVERY = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem, scope="module")  # one after another
FIGURE = re.compile(r"!\[(.*)\]\((figures/\w+\.svg)\)\n<!-- data drawn: (\w+) -->")
NUMBER = re.compile(r"(\d[\d,]*) bytes|(\d+\.\d+) %|(\d+\.\d+) MB")
AMOUNT = re.compile(r" *\d[\d,]*(?:\.\d+)?")  # with the spaces before it, which align columns
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")
README = render.HERE / "README.md"
STALE = "run `make pages` and look at the diff"

RUN = """
import json, sys
sys.path.insert(0, sys.argv[2])
import render
from course_sources import checked, solution
path = render.HERE / sys.argv[1]
parts = render.cells(path.read_text(encoding="utf-8"))
namespace = {"__name__": "__main__"}
outputs = list(render.run(parts, namespace, path.name))
solved = []
for call in checked(path):
    code = call.code
    for stub in render.stubs(call.code).values():
        code = code.replace(render.ast.get_source_segment(call.code, stub), "")
    solved.append(render.run_cell(solution(call) + "\\n" + code, namespace, call.exercise).text)
page = render.page(path.stem, parts, outputs)
print("\\0" + json.dumps([[[o.text, o.digests] for o in outputs], solved, page]))
"""


def parts_of(path: Path) -> list[render.Cell]:
    return render.cells(path.read_text(encoding="utf-8"))


def page_of(path: Path) -> str:
    return (render.PAGES / f"{path.stem}.md").read_text(encoding="utf-8")


@cache
def ran(path: Path) -> tuple[list[Any], list[str], str]:
    """Texts and digests of each cell, what the solved exercises print, and the page: in a process of its own."""
    said = run_script(RUN, path.name, Path(__file__).parent, path=render.HERE, timeout=900, MPLBACKEND="agg")
    outputs, solved, page = json.loads(said.rpartition("\0")[2])
    return outputs, solved, page


def test_there_are_tutorials() -> None:
    assert TUTORIALS


@EVERY
def test_prose_and_code_of_a_page_are_those_of_its_source(path: Path) -> None:
    page = page_of(path)
    at = 0
    for part in parts_of(path):
        block = render.linked(part.text) if part.prose else f"```python\n{part.text}\n```"
        assert block in page[at:], f"{STALE}: {block[:200]}"
        at = page.index(block, at)


@EVERY
def test_a_page_is_what_its_tutorial_prints_and_draws(path: Path) -> None:
    """Line by line; of cells tagged volatile, numbers may differ; of those tagged about, by a little."""
    now, before = ran(path)[2].splitlines(), page_of(path).splitlines()
    loose = varying_lines(path, now)
    for number, (got, expected) in enumerate(zip(now, before, strict=False)):
        same = alike(got, expected, loose.get(number, ""))
        assert same, f"{STALE}: line {number + 1} is {got!r}, on the page {expected!r}"
    assert len(now) == len(before), STALE


def alike(got: str, expected: str, varies: str) -> bool:
    """Whether two lines are the same, or as much as is asked of what varies."""
    if not varies:
        return got == expected
    if varies == "volatile":
        return AMOUNT.sub("#", got) == AMOUNT.sub("#", expected)
    numbers = [[float(n.replace(",", "")) for n in AMOUNT.findall(line)] for line in (got, expected)]
    return AMOUNT.sub("#", got) == AMOUNT.sub("#", expected) and numbers[0] == pytest.approx(numbers[1], rel=0.02)


def test_what_is_alike() -> None:
    """A peak may be 2 % off; a count of blocks, or a time tagged volatile, is another thing."""
    assert alike("peak  1,000,000 on 8", "peak 1,019,000 on 8", "about")
    assert not alike("peak 1,000,000 on 8", "peak 1,030,000 on 8", "about")
    assert not alike("peak 1,000,000 on 8", "peak 1,000,000 on 9", "about")
    assert alike("in  0.3 s", "in 10.9 s", "volatile")
    assert not alike("0.3 s", "0.9 ms", "volatile")
    assert not alike("0.3 s", "0.9 s", "")


def varying_lines(path: Path, lines: list[str]) -> dict[int, str]:
    """Numbers of the page's lines that a cell printed of which the output varies, and how."""
    found: dict[int, str] = {}
    at, text = 0, "\n".join(lines)
    for part in parts_of(path):
        block = render.linked(part.text) if part.prose else f"```python\n{part.text}\n```"
        at = text.index(block, at) + len(block)
        if part.varies and text[at:].startswith("\n\n```text\n"):
            end = text.index("\n```", at + 10)
            first = text.count("\n", 0, at)
            found |= dict.fromkeys(range(first, first + text.count("\n", at, end) + 1), part.varies)
    return found


@EVERY
def test_the_solutions_put_in_their_places_are_right(path: Path) -> None:
    for call, said in zip(checked(path), ran(path)[1], strict=True):
        assert f"{call.exercise} {', '.join(call.functions)}: right." in said


@EVERY
def test_nothing_but_its_check_uses_a_stub(path: Path) -> None:
    """So a tutorial runs whether or not its exercises are solved."""
    left = {name for call in checked(path) for name in call.functions}
    for part in parts_of(path):
        if part.prose or "check(" in part.text:
            continue
        used = {node.id for node in ast.walk(ast.parse(part.text)) if isinstance(node, ast.Name)}
        assert not used & left


@EVERY
def test_every_stub_is_checked(path: Path) -> None:
    written = {name for part in parts_of(path) if not part.prose for name in render.stubs(part.text)}
    assert written == {name for call in checked(path) for name in call.functions}


@EVERY
def test_figures_are_there_small_and_titled(path: Path) -> None:
    drawn = FIGURE.findall(page_of(path))
    files = {f"figures/{image.name}" for image in (render.PAGES / "figures").glob(f"{path.name[:2]}_*.svg")}
    assert {file for _, file, _ in drawn} == files
    assert len(drawn) <= 3
    for said, file, _ in drawn:
        image = (render.PAGES / file).read_text(encoding="utf-8")
        assert len(image) <= 40_000
        assert "<text" in image
        assert "<image" not in image  # no rasters
        assert len(said) > 20


@EVERY
def test_numbers_of_the_prose_are_asserted_or_printed(path: Path) -> None:
    parts = parts_of(path)
    sure = "\n".join(output[0] for output in ran(path)[0])
    for part in parts:
        for node in ast.walk(ast.parse("" if part.prose else part.text)):
            sure += "\n" + ast.unparse(node) if isinstance(node, ast.Assert) else ""
    numbers = {number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", sure.replace("_", ""))}
    for part in parts:
        for found in NUMBER.findall(re.sub(r"\s+", " ", part.text) if part.prose else ""):
            number = "".join(found).replace(",", "")
            assert number in numbers, f"nothing asserts or prints {number}"


@EVERY
def test_cells_are_short_and_few(path: Path) -> None:
    parts = parts_of(path)
    for part in parts:
        lines = [line for line in part.text.splitlines() if line.strip()]
        assert part.prose or len(lines) <= 30, part.text
    assert parts[0].prose
    assert re.match(rf"# {int(path.name[:2])}\. .*\?\n", parts[0].text), "the first line is the question"


@pytest.mark.parametrize("path", [README, *TUTORIALS], ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(part.text for part in parts_of(path)) if path.suffix == ".py" else path.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        assert (path.parent / target).exists(), target


@EVERY
def test_links_of_a_page_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(page_of(path)):
        assert (render.PAGES / target).exists(), target


def test_the_first_picture_is_what_its_script_draws() -> None:
    code = "import overview; print(overview.digest(overview.draw()))"
    said = run_script(code, path=render.HERE, MPLBACKEND="agg").strip()
    assert f"<!-- data drawn: {said} -->" in README.read_text(encoding="utf-8"), STALE
    assert (render.PAGES / "figures" / "block.svg").stat().st_size <= 40_000


def test_no_page_is_without_its_tutorial() -> None:
    assert {page.stem for page in render.PAGES.glob("*.md")} == {path.stem for path in TUTORIALS}


def test_exercises_are_numbered_as_their_tutorials() -> None:
    for path in TUTORIALS:
        names = [call.exercise for call in checked(path)]
        assert names == [f"{int(path.name[:2])}{letter}" for letter in "abcdefgh"[: len(names)]]
    assert ALL
