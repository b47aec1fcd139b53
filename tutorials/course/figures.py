"""Figures in the course's style: Paul Tol's bright colours, white ground, legible at 640 pixels."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

BLUE, RED, GREEN, YELLOW = "#4477aa", "#ee6677", "#228833", "#ccbb44"
CYAN, PURPLE, GREY = "#66ccee", "#aa3377", "#bbbbbb"

mpl.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.constrained_layout.use": True,
        "figure.titlesize": 10,
        "font.size": 10,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "savefig.facecolor": "white",
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "minitl",  # the same drawing gives the same bytes
    }
)


def figure(
    columns: int = 1, rows: int = 1, *, height: float = 3.2, **options: Any
) -> tuple[Any, Any]:
    """A figure 6.4 inches wide and its axes, as `plt.subplots` gives them."""
    return plt.subplots(rows, columns, figsize=(6.4, height), **options)


def finish(
    axes: Any, title: str, x: str = "", y: str = "", legend: str = "", **options: Any
) -> None:
    """Title, labels, and a legend where `legend` says its place; returns nothing that a notebook would print."""
    axes.set(title=title, xlabel=x, ylabel=y, **options)
    if legend:
        axes.legend(loc=legend)
