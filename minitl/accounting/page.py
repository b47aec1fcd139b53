"""One self-contained page about a step: its ledger, bars of it, and its memory moment by moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from minitl.accounting.ledger import WHY, Ledger, Row, shape_text
from minitl.accounting.moment import Moment, StepBuffer
from minitl.accounting.plot import COLOURS, KINDS, kind_of
from minitl.accounting.timeline import Timeline
from minitl.accounting.timeline_plot import STACK, stacked
from minitl.errors import UsageError
from minitl.files import write_whole

SHOWN = 8  # buffers under the pointer; the others are told as a sum
HEAD = ("layer", "op", "role", "rule", "keeps", "gradient of", "shape", "bits", "bytes")
NUMBERS = ("bits", "bytes")
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:1200px;padding:0 1rem;color:#222}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;font-size:13px;width:100%}
th,td{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #ddd}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
thead th{position:sticky;top:0;background:#fff;cursor:pointer;user-select:none}
thead th[aria-sort=ascending]::after{content:" \\25B2"}thead th[aria-sort=descending]::after{content:" \\25BC"}
"""
SORT = """
for (const head of document.querySelectorAll("thead th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], i = head.cellIndex, number = head.className === "n";
  const down = head.getAttribute("aria-sort") === (number ? "descending" : "ascending") !== number;
  const value = row => number ? +row.cells[i].dataset.value : row.cells[i].textContent;
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b), order = number ? x - y : x.localeCompare(y, "en", {numeric: true});
    return down ? -order : order;
  });
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
};
"""


def check() -> None:
    """Raise UsageError without plotly."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise UsageError("--html needs plotly", remedy="pip install 'minitl[html]'") from None


def write(path: Path, title: str, ledger: Ledger, line: Timeline) -> None:
    """Write the page, whole or not at all; needs plotly, whose code goes into it."""
    check()
    import plotly.io

    charts = [
        plotly.io.to_html(figure, include_plotlyjs=first, full_html=False, config={"displaylogo": False})
        for first, figure in ((True, _timeline(line)), (False, _bars(ledger.rows)))
    ]
    text = f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>
<h1>{escape(title)}</h1>
<p>{_sentence(ledger, line)}</p>
<h2>Memory over the step</h2>{charts[0]}
<h2>What is kept for backward, by layer</h2>{charts[1]}
<h2>Ledger</h2>{_table(ledger.rows)}
<script>{SORT}</script></html>
"""
    write_whole(path, text.encode())


def _sentence(ledger: Ledger, line: Timeline) -> str:
    peak = line.peak
    return escape(
        f"Kept for backward: {ledger.kept_bytes:,} bytes in {len(ledger.rows)} buffers. Peak: {peak.bytes:,} bytes, "
        f"in {peak.where}. MB are 1e6 bytes."
    )


def _timeline(line: Timeline) -> Any:
    """Stacked areas; what is alive at a moment under the pointer."""
    import plotly.graph_objects as go

    moments, peak = line.extremes(), line.peak
    at = [m.at for m in moments]
    figure = go.Figure()
    for name, own in stacked(line, moments).items():
        figure.add_scatter(
            x=at, y=[b / 1e6 for b in own], name=name, stackgroup="all", mode="none", fillcolor=STACK[name][1],
            hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=at, y=[m.bytes / 1e6 for m in moments], mode="lines", line={"color": "black", "width": 1}, name="all",
        text=[_alive(line, m) for m in moments], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    figure.add_annotation(x=peak.at, y=peak.bytes / 1e6, text=f"peak {peak.bytes / 1e6:.4g} MB", ay=-30)
    figure.add_vline(x=line.turn.at, line_width=1, annotation_text="backward", annotation_position="bottom right")
    figure.update_layout(
        template="plotly_white", height=520, hovermode="x", hoverlabel={"align": "left", "bgcolor": "white"},
        legend={"traceorder": "reversed"}, margin={"t": 40, "r": 10},
        xaxis_title="moment", yaxis_title="alive (MB)",
    )  # fmt: skip
    return figure


def _alive(line: Timeline, moment: Moment) -> str:
    """The largest buffers at a moment, as the pointer shows them."""
    alive = line.alive(moment.at)
    loose = [b for b in alive if not b.always]
    lines = [f"<b>{moment.bytes / 1e6:,.3f} MB</b> in {escape(moment.where)}"]
    lines += [f"{b.bytes / 1e6:,.3f} {_what(b)}" for b in loose[:SHOWN]]
    rest, always = loose[SHOWN:], sum(b.bytes for b in alive if b.always)
    if rest:
        lines.append(f"{sum(b.bytes for b in rest) / 1e6:,.3f} {len(rest)} smaller ones")
    return "<br>".join([*lines, f"{always / 1e6:,.3f} held between steps"])


def _what(b: StepBuffer) -> str:
    return escape(f"{b.layer} {b.name}: {b.why}".strip())


def _bars(rows: Sequence[Row]) -> Any:
    """One bar a layer, one colour a kind of buffer."""
    import plotly.graph_objects as go

    figure, layers = go.Figure(), list(dict.fromkeys(row.layer for row in rows if row.bytes))
    for kind, colour in zip(KINDS, COLOURS, strict=True):
        own = [row for row in rows if kind_of(row) == kind and row.bytes]
        if own:
            figure.add_bar(
                y=[row.layer for row in own], x=[row.bytes / 1e6 for row in own], name=kind, orientation="h",
                marker_color=colour, text=[f"{row.tensor} {shape_text(row.shape)}" for row in own], textposition="none",
                hovertemplate="%{y}: %{text}, %{x:.3f} MB<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        template="plotly_white", barmode="stack", height=160 + 17 * len(layers), margin={"t": 20, "r": 10},
        yaxis={"categoryorder": "array", "categoryarray": layers[::-1], "tickfont": {"size": 11}, "dtick": 1},
        xaxis_title="kept (MB)",
    )  # fmt: skip
    return figure


def _table(rows: Iterable[Row]) -> str:
    """The ledger; a click on a heading sorts by it."""
    head = "".join(f"<th{' class=n' * (name in NUMBERS)}>{name}</th>" for name in HEAD)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table>"


def _row(row: Row) -> str:
    needs = ", ".join(WHY[need] for need in row.needed_for)
    texts = (row.layer, row.op, row.role, row.rule, row.tensor, needs, shape_text(row.shape))
    numbers = "".join(f'<td class=n data-value="{number}">{number:,}</td>' for number in (row.bits, row.bytes))
    return f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in texts)}{numbers}</tr>"
