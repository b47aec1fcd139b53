"""Two pictures of a comparison: accuracy against kept memory, and what the kept memory is made of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitl.accounting.plot import new_figure, plot_kept, save
from minitl.training.adapt import Task
from minitl.training.compare import Result, ledger

COLOUR, HIGHLIGHT = "#4477aa", "#ee6677"  # of Paul Tol's bright scheme, told apart by all
AROUND = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
PLACES = [(radius * x, radius * y) for radius in (9, 18, 27, 36) for x, y in AROUND]  # points from a dot


@dataclass(frozen=True)
class Dot:
    """A named point with an error bar."""

    x: float
    y: float
    spread: float
    name: str

    @property
    def colour(self) -> str:
        """MobileTL's methods stand out."""
        return HIGHLIGHT if self.name.startswith("mobiletl") else COLOUR


def plot_accuracy(results: Sequence[Result], path: Path) -> None:
    """Draw each method's mean accuracy against the memory its step keeps (log scale); write .png, .pdf or .svg.

    The bars reach one standard deviation over the seeds up and down. Raises UsageError where
    matplotlib is missing or the file cannot be written.
    """
    figure, (axes,) = new_figure(7, 4.5)
    dots = []
    for result in results:
        percent = [100 * fraction for fraction in result.accuracy]
        mean, spread = statistics.mean(percent), statistics.stdev(percent) if len(percent) > 1 else 0.0
        name = str(result.choice)
        dots.append(Dot(result.kept_bytes / 1e6, mean, spread, name))
        axes.errorbar(dots[-1].x, mean, spread, fmt="o", color=dots[-1].colour, capsize=3, markersize=7)
    axes.set(xscale="log", xlabel="kept for backward (MB = 1e6 bytes, log scale)", ylabel="test accuracy (%)")
    axes.set_title(f"{setting()}: mean and standard deviation over {results[0].seeds} seeds", fontsize=10)
    axes.margins(0.14)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.draw_without_rendering()  # settles the layout, before places for the labels are looked for
    label(axes, dots)
    save(figure, path)


def plot_memory(results: Sequence[Result], path: Path, task: Task | None = None) -> None:
    """Draw what each method's step keeps, stacked by kind of buffer; write .png, .pdf or .svg. Raises UsageError."""
    task = task or Task()
    choices = [result.choice for result in results]
    plot_kept({str(choice): ledger(choice, task) for choice in choices}, path, title=setting(task))


def setting(task: Task | None = None) -> str:
    """Network, batch and resolution, for a title."""
    task = task or Task()
    return f"digits_irb, batch {task.batch}, {task.size} px"


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
