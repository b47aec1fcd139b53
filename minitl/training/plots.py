"""Pictures of a comparison: accuracy against kept and peak memory, and what the kept memory is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minitl.accounting.plot import new_figure, plot_kept, save
from minitl.training.adapt import Task, network
from minitl.training.compare import ledger
from minitl.training.search import Result

T = TypeVar("T")

KEPT = "kept for backward (MB = 1e6 bytes, log scale)"
COLOUR, HIGHLIGHT = "#4477aa", "#ee6677"  # of Paul Tol's bright scheme, told apart by all
AROUND = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
NEAR = 18  # further away, a line leads from a name to its dot
PLACES = [(radius * x, radius * y) for radius in (9, 18, 27, 36, 54, 72) for x, y in AROUND]  # points from a dot


@dataclass(frozen=True)
class Dot:
    """A named point with an error bar."""

    x: float
    y: float
    spread: float
    name: str
    filled: bool = True

    @property
    def colour(self) -> str:
        """MobileTL's methods stand out."""
        return HIGHLIGHT if self.name.startswith("mobiletl") else COLOUR


def plot_accuracy(results: Sequence[Result], path: Path, about: str = "") -> None:
    """Draw each method's mean accuracy against the memory its step keeps (log scale); write .png, .pdf or .svg.

    `about` is network, batch and resolution, by default those of the demonstration.

    The bars reach one standard deviation over the seeds up and down. Raises UsageError where
    matplotlib is missing or the file cannot be written.
    """
    figure, (axes,) = new_figure(7, 4.5)
    axes.set_title(_title(results, about), fontsize=10)
    _draw(figure, {axes: _dots(results, "kept_bytes")}, {axes: KEPT})
    save(figure, path)


def plot_pareto(results: Sequence[Result], path: Path) -> None:
    """Draw mean accuracy against kept and against peak memory, and the Pareto set of each; as `plot_accuracy`.

    A hollow dot is a method with an approximate gradient.
    """
    figure, (left, right) = new_figure(16, 8, 2, share_x=False)
    exact = {str(r.choice): network(Task(), r.choice.build()).exact for r in results}
    dots = {axes: _dots(results, of, exact) for axes, of in ((left, "kept_bytes"), (right, "peak_bytes"))}
    for axes, of in dots.items():
        front = [(dot.x, dot.y) for dot in pareto(of, lambda dot: (dot.x, dot.y))]
        axes.step(*zip(*front, strict=True), where="post", color="#999999", linewidth=1, zorder=1, label="Pareto set")
    left.legend(fontsize=8, frameon=False, loc="lower right")
    figure.suptitle(f"{_title(results)}; hollow: approximate gradients", fontsize=11)
    _draw(figure, dots, {left: KEPT, right: "peak of a step (MB = 1e6 bytes, log scale)"})
    save(figure, path)


def pareto(ways: Iterable[T], of: Callable[[T], tuple[float, float]]) -> list[T]:
    """Those that no other matches in accuracy for as little memory, the cheapest first; `of` gives the two."""
    front: list[T] = []
    for way in sorted(ways, key=lambda way: (of(way)[0], -of(way)[1])):
        if not front or of(way)[1] > of(front[-1])[1]:
            front.append(way)
    return front


def _title(results: Sequence[Result], about: str = "") -> str:
    seeds = results[0].seeds
    spread = f"mean and standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return f"{about or Task()}: {spread}"


def _dots(results: Sequence[Result], of: str, exact: Mapping[str, bool] | None = None) -> list[Dot]:
    return [
        Dot(getattr(r, of) / 1e6, r.percent, r.spread, str(r.choice), exact is None or exact[str(r.choice)])
        for r in results
    ]


def _draw(figure: Any, dots: Mapping[Any, Sequence[Dot]], labels: Mapping[Any, str]) -> None:
    for axes, of in dots.items():
        for dot in of:
            face = dot.colour if dot.filled else "white"
            axes.errorbar(dot.x, dot.y, dot.spread, fmt="o", color=dot.colour, mfc=face, capsize=3, markersize=7)
        axes.set(xscale="log", xlabel=labels[axes], ylabel="test accuracy (%)")
        axes.margins(0.14)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.draw_without_rendering()  # settles the layout, before places for the labels are looked for
    for axes, of in dots.items():
        label(axes, of)


def plot_memory(results: Sequence[Result], path: Path, task: Task | None = None) -> None:
    """Draw what each method's step keeps, stacked by kind of buffer; write .png, .pdf or .svg. Raises UsageError."""
    task = task or Task()
    choices = [result.choice for result in results]
    plot_kept({str(choice): ledger(choice, task) for choice in choices}, path, title=str(task))


def label(axes: Any, dots: Sequence[Dot]) -> None:
    """Name every dot, in the first place around it that no dot, bar or other name takes."""
    from matplotlib.transforms import Bbox

    taken = []
    for dot in dots:
        ends = axes.transData.transform([(dot.x, dot.y - dot.spread), (dot.x, dot.y + dot.spread)])
        taken.append(Bbox(ends).padded(8))  # pixels
    for dot in dots:
        for place in PLACES:
            name = _annotate(axes, dot, place)
            box = name.get_window_extent()
            inside = axes.bbox.fully_containsx(box.x0) and axes.bbox.fully_containsx(box.x1)
            if (inside and not box.count_overlaps(taken)) or place == PLACES[-1]:
                break
            name.remove()
        taken.append(box)
        if max(map(abs, place)) > NEAR:
            line = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6}
            axes.annotate("", (dot.x, dot.y), place, textcoords="offset points", arrowprops=line)


def _annotate(axes: Any, dot: Dot, place: tuple[int, int]) -> Any:
    dx, dy = place
    return axes.annotate(
        dot.name,
        (dot.x, dot.y),
        place,
        textcoords="offset points",
        horizontalalignment="left" if dx > 0 else "right" if dx < 0 else "center",
        verticalalignment="bottom" if dy > 0 else "top" if dy < 0 else "center",
        color=dot.colour,
        fontsize=9,
    )
