"""A picture of a plan: what each way trains against what it takes, every way of the Pareto set named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minitl.accounting.plan import Plan
from minitl.accounting.plot import new_figure, save

EXACT, APPROXIMATE, BUDGET = "#4477aa", "#ee6677", "#228833"
LINE = 0.17  # inches of height that a name takes


def plot_plan(found: Plan, path: Path, title: str) -> None:
    """Draw all ways, the Pareto set as steps with its names beside the panel, and the budget; write it to `path`."""
    figure, (axes,) = new_figure(10.5, max(4.5, 1.4 + LINE * len(found.pareto)))
    for exact, colour in ((True, EXACT), (False, APPROXIMATE)):
        ways = [way for way in found.entries if way.exact == exact]
        needs = [way.need(found.of) / 1e6 for way in ways]
        label = "exact gradients" if exact else "approximate gradients"
        axes.scatter(needs, [way.trained_parameters for way in ways], s=14, color=colour, alpha=0.35, lw=0, label=label)
    steps = [(way.need(found.of) / 1e6, way.trained_parameters) for way in found.pareto]
    axes.step(*zip(*steps, strict=True), where="post", color="#666666", linewidth=1, label="Pareto set")
    axes.axvline(found.budget / 1e6, color=BUDGET, linestyle="--", linewidth=1, label="budget")
    unit = "MFLOPs a step" if found.of == "flops" else f"{found.of} memory (MB = 1e6 bytes)"
    axes.set(xscale="log", xlabel=unit, ylabel="trained parameters", title=title)
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    _name(axes, found, steps)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)  # where nothing crosses it
    save(figure, path)


def _name(axes: Any, found: Plan, points: list[tuple[float, int]]) -> None:
    """Write the names right of the panel, evenly spread in the order of the points, each with a line to its own."""
    for number, (way, point) in enumerate(zip(found.pareto, points, strict=True)):
        height = (number + 0.5) / len(points)
        axes.annotate(
            way.name,
            point,
            xytext=(1.03, height),
            textcoords="axes fraction",
            fontsize=7.5,
            va="center",
            weight="bold" if way == found.best else "normal",
            color="black" if way.need(found.of) <= found.budget else "#888888",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 2},
            annotation_clip=False,
        )
        axes.plot(*point, "o", markersize=3.5, color=EXACT if way.exact else APPROXIMATE)
