"""Stacked bars of kept memory: one bar a ledger, one colour a kind of buffer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitl.accounting.ledger import Ledger, Row
from minitl.accounting.report import Key
from minitl.errors import UsageError, lookup
from minitl.files import check_writable, replacing
from minitl.layers import ROLES

# What a role's buffers are, in the order they are stacked.
KINDS = {
    "convolution inputs": ("stem", "expand", "depthwise", "project", "head_conv", "classifier"),
    "norms": ("stem_norm", "expand_norm", "depthwise_norm", "project_norm", "head_norm"),
    "activations": ("stem_act", "expand_act", "depthwise_act", "head_act", "classifier_act"),
    "squeeze-and-excite": ("se_fc1", "se_act", "se_fc2", "se_gate", "se_scale"),
    "side modules": tuple(role for role in ROLES if role.startswith(("side_", "low_rank_"))),
    "dropout and loss": ("dropout", "loss"),
}
TYPES = (".png", ".pdf", ".svg")  # matplotlib knows more, but some need LaTeX
# Paul Tol's bright scheme, told apart by all
COLOURS = ("#4477aa", "#ee6677", "#ccbb44", "#228833", "#66ccee", "#bbbbbb")


Bars = dict[str, list[tuple[Row, tuple[str, ...]]]]  # of a bar's name: rows, each with the kinds that share it


def kind_of(row: Row) -> str:
    """The kind of buffer a row is; raises UnknownNameError for a role that has none."""
    kinds = {role: kind for kind, roles in KINDS.items() for role in roles}
    return lookup("role of a kept buffer", row.role, kinds, layer=row.layer)


def plot_kept(ledgers: Mapping[str, Ledger], path: Path, *, title: str, by: Key | None = None) -> None:
    """Draw each ledger's kept memory, stacked by kind, and write it to `path` (.png, .pdf or .svg).

    A ledger is one bar, or with `by` a panel with one bar for each key (a layer or block, say). A buffer that several
    layers keep is hatched: its colours are those of both kinds, since either layer alone would keep it too.
    """
    bars = {name: _bars(name, ledger, by) for name, ledger in ledgers.items()}
    panels = bars if by else {"": {name: rows for own in bars.values() for name, rows in own.items()}}
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    height = 1.6 + (0.36 if len(names) < 30 else 0.2) * len(names)
    figure, all_axes = new_figure(4 + 4 * len(panels), height, len(panels))
    figure.suptitle(title, fontsize=11)
    longest = 0.0
    for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
        axes.set_title(name, fontsize=10)
        longest = max(longest, _stack(axes, {key: panel.get(key, []) for key in names}))
    all_axes[0].set_xlim(0, 1.15 * longest or 1)
    all_axes[0].set_yticks(range(len(names)), names, fontsize=9 if len(names) < 30 else 7)
    all_axes[0].invert_yaxis()
    handles = {
        label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    save(figure, path)


def _bars(name: str, ledger: Ledger, by: Key | None) -> Bars:
    """The rows of each bar, with the kinds that each is shared by."""
    kinds = {row.layer: kind_of(row) for row in ledger.rows}
    bars: Bars = {} if ledger.rows else {name: []}
    for row in ledger.rows:
        sharing = {kinds[layer] for layer in (row.layer, *row.shared_with)}
        own = tuple(kind for kind in KINDS if kind in sharing)
        bars.setdefault(by(row) if by else name, []).append((row, own))
    return bars


def _stack(axes: Any, bars: Bars) -> float:
    """One horizontal bar per name, its parts end to end, and its sum; gives the longest's."""
    left = [0.0] * len(bars)
    for shared in (False, True):
        for kinds in _kinds(bars, shared):
            widths = [
                sum(row.bytes for row, own in rows if own == kinds and bool(row.shared_with) == shared) / 1e6
                for rows in bars.values()
            ]
            if any(widths):
                axes.barh(range(len(bars)), widths, left=left, height=0.7, **_look(kinds, shared))
            left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.3g}", va="center", fontsize=8 if len(bars) < 30 else 6)
    axes.set_xlabel("kept for backward (MB = 1e6 bytes)")
    return max(left)


def _kinds(bars: Bars, shared: bool) -> list[tuple[str, ...]]:
    found = {own for rows in bars.values() for row, own in rows if bool(row.shared_with) == shared}
    return sorted(found, key=lambda own: [list(KINDS).index(kind) for kind in own])


def _look(kinds: tuple[str, ...], shared: bool) -> dict[str, Any]:
    colours = [COLOURS[list(KINDS).index(kind)] for kind in kinds]
    if not shared:
        return {"color": colours[0], "label": kinds[0]}
    hatch = {"hatch": "////", "edgecolor": colours[1] if len(colours) > 1 else "white", "linewidth": 0}
    return {"facecolor": colours[0], "label": f"shared: {', '.join(kinds)}", **hatch}


def check(path: Path) -> None:
    """Raise UsageError, before any work is done, for what would keep a plot from being written to `path`."""
    new_figure(1, 1)
    if path.suffix.lower() not in TYPES:
        raise UsageError(f"plot: unknown file type {path.suffix!r} of {path}", remedy="use .png, .pdf or .svg")
    check_writable(path)


def new_figure(width: float, height: float, count: int = 1, *, share_x: bool = True) -> tuple[Any, list[Any]]:
    """A figure and its panels side by side, which share their axes; raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("plots need matplotlib", remedy="pip install 'minitl[demo]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(1, count, sharex=share_x, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def save(figure: Any, path: Path) -> None:
    """Write the figure whole or not at all."""
    check(path)
    with replacing(path) as part:
        figure.savefig(part, format=path.suffix[1:].lower(), dpi=150)
