"""Stacked bars of kept memory: one bar a ledger, one colour a kind of buffer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitl.accounting.ledger import Ledger, Row
from minitl.accounting.report import Key, sums
from minitl.errors import UsageError
from minitl.files import check_writable, replacing

# What a role's buffers are, in the order they are stacked.
KINDS = {
    "convolution inputs": ("stem", "expand", "depthwise", "project", "head_conv", "classifier"),
    "norms": ("stem_norm", "expand_norm", "depthwise_norm", "project_norm", "head_norm"),
    "activations": ("stem_act", "expand_act", "depthwise_act", "head_act", "classifier_act"),
    "squeeze-and-excite": ("se_fc1", "se_act", "se_fc2", "se_gate", "se_scale"),
    "dropout and loss": ("dropout", "loss"),
}
TYPES = (".png", ".pdf", ".svg")  # matplotlib knows more, but some need LaTeX
COLOURS = ("#4477aa", "#ee6677", "#ccbb44", "#228833", "#bbbbbb")  # Paul Tol's bright scheme, told apart by all


def kind_of(row: Row) -> str:
    """The kind of buffer a row is."""
    return next(kind for kind, roles in KINDS.items() if row.role in roles)


def plot_kept(ledgers: Mapping[str, Ledger], path: Path, *, title: str, by: Key | None = None) -> None:
    """Draw each ledger's kept memory, stacked by kind, and write it to `path` (.png, .pdf or .svg).

    With `by`, a ledger has one bar for each key (a block, say) instead of one in all.
    """
    bars = {
        f"{name} {key}".strip() if len(ledgers) > 1 or not key else key: [r for r in ledger.rows if _key(r, by) == key]
        for name, ledger in ledgers.items()
        for key in (sums(ledger.rows, by) if by else {"": 0})
    }
    figure, axes = new_figure(8, 1.4 + 0.36 * len(bars))
    left = [0.0] * len(bars)
    for kind, colour in zip(KINDS, COLOURS, strict=True):
        widths = [sum(r.bytes for r in rows if kind_of(r) == kind) / 1e6 for rows in bars.values()]
        if any(widths):
            axes.barh(range(len(bars)), widths, left=left, color=colour, label=kind, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.3g}", va="center", fontsize=8)
    axes.set(yticks=range(len(bars)), yticklabels=list(bars), xlabel="kept for backward (MB = 1e6 bytes)", title=title)
    axes.invert_yaxis()
    axes.set_xlim(right=1.12 * max(left))
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=len(KINDS))
    save(figure, path)


def check(path: Path) -> None:
    """Raise UsageError, before any work is done, for what would keep a plot from being written to `path`."""
    new_figure(1, 1)
    if path.suffix.lower() not in TYPES:
        raise UsageError(f"plot: unknown file type {path.suffix!r} of {path}", remedy="use .png, .pdf or .svg")
    check_writable(path)


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure and its axes, without upper and right frame; raises UsageError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("plots need matplotlib", remedy="pip install 'minitl[demo]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write the figure whole or not at all."""
    check(path)
    with replacing(path) as part:
        figure.savefig(part, format=path.suffix[1:].lower(), dpi=150)


def _key(row: Row, by: Key | None) -> str:
    return by(row) if by else ""
