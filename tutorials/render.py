"""Make the pages: run a tutorial and write it down as Markdown with SVG figures.

    python tutorials/render.py                    # all of them
    python tutorials/render.py 05_activations     # those whose names begin so
    python tutorials/render.py --times            # how long each takes, with an empty Numba cache and with a full one

A tutorial is a percent script: `# %% [markdown]` begins prose, `# %%` code. Each code cell is followed by what it
prints and draws. Where the prose ends with a **predict**, the cells that answer are folded up. A cell of which the
output varies (times, digits of rounding) is tagged `# %% tags=["volatile"]`; one of which the numbers vary a little
with the processor (peaks: scratch memory holds whole tiles) `# %% tags=["about"]`.
"""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGES = HERE / "pages"
TUTORIALS = sorted(HERE.glob("[0-9][0-9]_*.py"))
FOLD = "<details>\n<summary>Your answer first; then the cell, and what it prints</summary>"
UNFOLD = "</details>"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """Prose (without its comment signs) or code, as it stands in the source."""

    prose: bool
    text: str
    varies: str = ""  # or "volatile", or "about"


@dataclass(frozen=True)
class Output:
    """What a code cell printed, and what it drew: SVG, titles, and digests of the data drawn."""

    text: str = ""
    figures: tuple[bytes, ...] = ()
    titles: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


def cells(source: str) -> list[Cell]:
    """The cells of a tutorial, in order."""
    _, *parts = CELL.split(source)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [cell(header, body.strip("\n")) for header, body in pairs]


def cell(header: str, body: str) -> Cell:
    """One cell, from the rest of its `# %%` line and what follows."""
    if "[markdown]" in header:
        return Cell(True, re.sub(r"^# ?", "", body, flags=re.MULTILINE))
    return Cell(False, body, next((tag for tag in ("volatile", "about") if tag in header), ""))


def run(parts: Iterable[Cell], namespace: dict[str, Any], name: str) -> Iterator[Output]:
    """Run the cells one by one in one namespace; prose gives an empty output."""
    for number, part in enumerate(parts):
        yield Output() if part.prose else run_cell(part.text, namespace, f"{name}, cell {number}")


def run_cell(code: str, namespace: dict[str, Any], name: str) -> Output:
    """Run code; catch what it prints, and the figures that are open afterwards."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, name, "exec"), namespace)
    return Output(printed.getvalue().rstrip("\n"), *figures())


def figures() -> tuple[tuple[bytes, ...], tuple[str, ...], tuple[str, ...]]:
    """The open figures as SVG, their titles, and the digests of their data; closes them."""
    plt = sys.modules.get("matplotlib.pyplot")
    drawn = [plt.figure(number) for number in plt.get_fignums()] if plt else []
    images = tuple(svg(figure) for figure in drawn)
    for figure in drawn:
        plt.close(figure)
    return images, tuple(map(title, drawn)), tuple(map(digest, drawn))


def title(figure: Any) -> str:
    """The figure's title, else those of its axes."""
    return figure.get_suptitle() or "; ".join(axes.get_title() for axes in figure.axes)


def svg(figure: Any) -> bytes:
    """The figure as SVG, without the date."""
    image = io.BytesIO()
    figure.savefig(image, format="svg", metadata={"Date": None, "Creator": None})
    return image.getvalue()


def digest(figure: Any) -> str:
    """A short digest of the data drawn: coordinates to 4 digits and all text, whatever draws it."""
    said = [title(figure)]
    for axes in figure.axes:
        said += [text.get_text() for text in (axes.xaxis.label, axes.yaxis.label, *axes.texts)]
        said += [digits(line.get_xydata()) for line in axes.lines]
        said += [digits(_corners(patch)) for patch in axes.patches]
        said += [digits(part.get_offsets()) for part in axes.collections]
        said += [digits(path.vertices) for part in axes.collections for path in part.get_paths()]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def _corners(patch: Any) -> Any:
    """Its corners in the data's coordinates; none of an arrow, whose path is made for the screen."""
    return (
        []
        if hasattr(patch, "get_arrowstyle")
        else patch.get_patch_transform().transform(patch.get_path().vertices)
    )


def digits(values: Any) -> str:
    """Numbers to four digits of the largest."""
    numbers = [float(v) for row in values for v in row]
    size = max((abs(v) for v in numbers if abs(v) < float("inf")), default=0) or 1
    return " ".join(f"{v / size + 0:.3f}" for v in numbers) + f" {size:.4g}"


def page(name: str, parts: list[Cell], outputs: list[Output]) -> str:
    """The Markdown of a tutorial; `name` is that of its source without `.py`."""
    blocks, count, folded = (
        [f"*The page of [{name}.py](../{name}.py), made by running it.*"],
        0,
        False,
    )
    for part, output in zip(parts, outputs, strict=True):
        if part.prose:
            blocks += [UNFOLD] * folded + [linked(part.text)]
            folded = "**predict" in part.text.strip().split("\n\n")[-1].lower()
            blocks += [FOLD] * folded
            continue
        blocks.append(f"```python\n{part.text}\n```")
        if output.text:
            blocks.append(f"```text\n{output.text}\n```")
        for said, mark in zip(output.titles, output.digests, strict=True):
            count += 1
            mark = part.varies or mark
            image = f"figures/{name[:2]}_{count}.svg"
            blocks.append(f"![{said}]({image})\n<!-- data drawn: {mark} -->")
    return "\n\n".join(blocks) + "\n"


def linked(prose: str) -> str:
    """Prose with its links as they are from the page: to pages, not sources, and to other files one folder up."""
    prose = re.sub(r"\]\((\d\d_\w+)\.py\)", r"](\1.md)", prose)
    return re.sub(r"\]\((?!https?:|#|\d\d_\w+\.md)", "](../", prose)


def write(path: Path) -> None:
    """Run a tutorial and write its page and figures, in place of the old ones."""
    parts = cells(path.read_text(encoding="utf-8"))
    outputs = list(run(parts, {"__name__": "__main__"}, path.name))
    folder = PAGES / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{path.stem[:2]}_*.svg"):
        old.unlink()
    drawn = [image for output in outputs for image in output.figures]
    for number, image in enumerate(drawn, start=1):
        (folder / f"{path.stem[:2]}_{number}.svg").write_bytes(image)
    (PAGES / f"{path.stem}.md").write_text(page(path.stem, parts, outputs), encoding="utf-8")


def stubs(code: str) -> dict[str, ast.FunctionDef]:
    """The functions of a cell that are left to the learner: those that raise NotImplementedError."""
    functions = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    return {f.name: f for f in functions if "raise NotImplementedError" in ast.unparse(f)}


def times(paths: Iterable[Path]) -> None:
    """Print how long each tutorial computes as a script, first with an empty Numba cache."""
    print(f"{'seconds of CPU':34}{'cold':>8}{'warm':>8}")
    for path in paths:
        with tempfile.TemporaryDirectory() as cache:
            variables = {**os.environ, "NUMBA_CACHE_DIR": cache, "MPLBACKEND": "agg"}
            seconds = [_seconds(path, variables) for _ in range(2)]
        print(f"{path.stem:34}{seconds[0]:8.1f}{seconds[1]:8.1f}", flush=True)


def _seconds(path: Path, environment: dict[str, str]) -> float:
    """Of the process and all its threads, which a busy machine does not make more."""
    before = os.times()
    subprocess.run([sys.executable, path], env=environment, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def main(arguments: list[str]) -> None:
    """Make the pages named, each in a process of its own, or print times."""
    names = [a for a in arguments if not a.startswith("-")]
    paths = [path for path in TUTORIALS if not names or path.name.startswith(tuple(names))]
    if "--times" in arguments:
        times(paths)
    elif len(paths) == 1:
        os.environ["MPLBACKEND"] = "agg"
        write(paths[0])
    for path in paths if len(paths) > 1 and "--times" not in arguments else ():
        print(path.stem, flush=True)
        subprocess.run([sys.executable, __file__, path.name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
