"""Live memory over a step, stacked by what the arrays are: one panel a method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitl.accounting.moment import Moment
from minitl.accounting.plot import new_figure, save
from minitl.accounting.timeline import Timeline

# What is drawn as one, from the bottom, and its colour: Paul Tol's bright scheme.
STACK = {
    "parameters, statistics, optimizer": (("parameters", "statistics", "optimizer state"), "#bbbbbb"),
    "images and labels": (("images",), "#66ccee"),
    "kept for backward": (("kept",), "#4477aa"),
    "activations": (("activations",), "#228833"),
    "gradients of activations": (("activation gradients",), "#ee6677"),
    "gradients of parameters": (("parameter gradients",), "#aa3377"),
    "packed weights, scratch": (("packed weights", "scratch"), "#ccbb44"),
}


def stacked(line: Timeline, moments: list[Moment]) -> dict[str, list[int]]:
    """The bytes of each layer of the stack at these moments."""
    kinds = line.by_kind()
    return {
        name: [sum(kinds[kind][m.at] for kind in own if kind in kinds) for m in moments]
        for name, (own, _) in STACK.items()
    }


def plot_timelines(lines: Mapping[str, Timeline], path: Path, *, title: str) -> None:
    """Draw the live memory of each step and write it to `path` (.png, .pdf or .svg).

    Between two layers only the extremes are drawn. A dashed line marks what is kept when backward begins, a
    circle the peak.
    """
    figure, panels = new_figure(2 + 5 * len(lines), 4.6, len(lines))
    figure.suptitle(title, fontsize=11)
    for axes, (name, line) in zip(panels, lines.items(), strict=True):
        _draw(axes, name, line)
    axes = panels[0]
    axes.set_ylabel("alive (MB = 1e6 bytes)")
    axes.set_ylim(0, 1.12 * max(line.peak.bytes for line in lines.values()) / 1e6)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    save(figure, path)


def _draw(axes: Any, name: str, line: Timeline) -> None:
    moments, peak, turn = line.extremes(), line.peak, line.turn
    share = 100 / len(line.moments)
    at = [share * m.at for m in moments]
    layers = stacked(line, moments)
    colours = [colour for _, colour in STACK.values()]
    axes.stackplot(at, [[b / 1e6 for b in own] for own in layers.values()], labels=layers, colors=colours, linewidth=0)
    below = sum(own[moments.index(turn)] for own in list(layers.values())[:3]) / 1e6
    axes.axhline(below, color="black", linestyle="--", linewidth=0.8)
    kept = layers["kept for backward"][moments.index(turn)] / 1e6
    clear = peak.bytes / 1e6 > 1.07 * below  # of the peak's label, which stands above the peak
    axes.text(0, below, f" kept: {kept:.4g}", fontsize=8, va="bottom" if clear else "top")
    axes.axvline(share * turn.at, color="black", linewidth=0.6)
    axes.plot([share * peak.at], [peak.bytes / 1e6], "o", color="black", markersize=5, fillstyle="none")
    side = "left" if share * peak.at < 50 else "right"
    text = f" peak: {peak.bytes / 1e6:.4g}, {peak.where} "
    axes.text(share * peak.at, peak.bytes / 1e6, text, fontsize=8, va="bottom", ha=side)
    axes.set(title=name, xlabel="% of the step's allocations: forward | backward", xlim=(0, 100))
    axes.title.set_fontsize(10)
