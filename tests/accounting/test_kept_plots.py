"""Plots of kept memory: every bar is named, files are whole or not there, and errors say what to do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from models import trained

import minitl
from minitl.accounting import Ledger, predict
from minitl.accounting.plot import COLOURS, KINDS, kind_of, plot_kept
from minitl.accounting.report import block_of
from minitl.errors import UnknownNameError, UsageError
from minitl.layers import ROLES

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgba

NET = minitl.networks.digits_irb(dropout=0.2)
LEDGERS = {
    method: predict(trained(NET, method, 2), batch=2, resolution=24) for method in ("ft-blocks", "mobiletl")
}  # fmt: skip
PARTS = ["block 6", "block 7", "head", "loss"]
STARTS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml", ".PNG": b"\x89PNG"}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", STARTS)
def test_a_plot_is_one_file_of_its_type(suffix: str, tmp_path: Path) -> None:
    plot_kept(LEDGERS, tmp_path / f"plot{suffix}", title="title")
    assert files(tmp_path) == [f"plot{suffix}"]
    assert (tmp_path / f"plot{suffix}").read_bytes().startswith(STARTS[suffix])


@pytest.mark.parametrize("by_block", [False, True])
@pytest.mark.parametrize("names", [["mobiletl"], ["ft-blocks", "mobiletl"]])
def test_bars_are_named_and_as_long_as_the_bytes(
    names: list[str], by_block: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("minitl.accounting.plot.save", lambda figure, path: figures.append(figure))
    block = block_of(NET)
    plot_kept({n: LEDGERS[n] for n in names}, tmp_path / "x.png", title="title", by=block if by_block else None)
    assert figures[0].get_suptitle() == "title"
    panels = figures[0].axes
    assert [axes.get_title() for axes in panels] == (names if by_block else [""])
    assert [label.get_text() for label in panels[0].get_yticklabels()] == (PARTS if by_block else names)
    drawn = 0.0
    for axes in panels:
        bars = {container.get_label(): [bar.get_width() for bar in container] for container in axes.containers}
        for place, label in enumerate(PARTS if by_block else names):
            name = axes.get_title() if by_block else label
            for kind in KINDS:
                rows = (r for r in LEDGERS[name].rows if kind_of(r) == kind and (not by_block or block(r) == label))
                width = bars[kind][place] if kind in bars else 0.0
                assert abs(width - sum(r.bytes for r in rows) / 1e6) <= 1e-9  # a thousandth of a byte, of megabytes
        lengths = [sum(widths[place] for widths in bars.values()) for place in range(len(PARTS if by_block else names))]
        assert max(lengths) < axes.get_xlim()[1]
        drawn += sum(lengths)
    assert drawn == pytest.approx(sum(LEDGERS[n].kept_bytes for n in names) / 1e6, rel=1e-12)


def test_a_shared_buffer_is_hatched_in_the_colours_of_both_its_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What mobiletl-exact keeps for an activation is the next convolution's input: not memory for the activation."""
    figures: list[Any] = []
    monkeypatch.setattr("minitl.accounting.plot.save", lambda figure, path: figures.append(figure))
    exact = predict(trained(minitl.networks.irb(), "mobiletl-exact", 1), batch=2, resolution=7)
    plot_kept({"mobiletl-exact": exact}, tmp_path / "x.png", title="title")
    bars = {container.get_label(): container[0] for container in figures[0].axes[0].containers}
    shared = sum(row.bytes for row in exact.rows if row.shared_with)
    assert shared > 0.5 * exact.kept_bytes
    hatched = {label: bar for label, bar in bars.items() if bar.get_hatch()}
    assert sum(bar.get_width() for bar in hatched.values()) == pytest.approx(shared / 1e6)
    both = hatched["shared: convolution inputs, activations"]
    assert both.get_facecolor() == to_rgba(COLOURS[0])
    assert both.get_edgecolor() == to_rgba(COLOURS[2])
    assert bars["activations"].get_width() < 0.1 * shared / 1e6


def test_a_role_that_nobody_gave_a_kind_is_told() -> None:
    row = replace(LEDGERS["mobiletl"].rows[0], role="adapter")
    with pytest.raises(UnknownNameError, match="unknown role of a kept buffer 'adapter'"):
        kind_of(row)


def test_every_role_that_keeps_anything_has_one_kind() -> None:
    kinds = [role for roles in KINDS.values() for role in roles]
    assert len(kinds) == len(set(kinds))
    assert set(ROLES) - set(kinds) == {"pool", "add"}  # which keep nothing


@pytest.mark.parametrize("by_block", [False, True])
def test_a_ledger_that_keeps_next_to_nothing_draws(by_block: bool, tmp_path: Path) -> None:
    ledger = predict(trained(minitl.networks.digits_irb(), "ft-last"), batch=1, resolution=8)
    plot_kept({"ft-last": ledger}, tmp_path / "plot.svg", title="", by=block_of(NET) if by_block else None)
    assert files(tmp_path) == ["plot.svg"]


# What can go wrong


def draw(path: Path, ledgers: dict[str, Ledger] = LEDGERS) -> None:
    plot_kept(ledgers, path, title="title")


def test_without_matplotlib_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"^plots need matplotlib; pip install 'minitl\[demo\]'$"):
        draw(tmp_path / "plot.png")
    assert not files(tmp_path)


@pytest.mark.parametrize("name", ["plot", "plot.", "plot.txt", "plot.pngg", ".png"])
def test_an_unknown_type_is_told_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"plot: unknown file type .*; use \.png, \.pdf or \.svg$"):
        draw(tmp_path / name)
    assert not files(tmp_path)


def test_a_place_that_cannot_be_written_is_told_and_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("mine")
    for path, why in [
        (tmp_path / "missing" / "plot.png", "No such file or directory"),
        (tmp_path / "file" / "plot.png", "Not a directory"),
        (tmp_path / "folder.png", "Is a directory"),
    ]:
        with pytest.raises(UsageError) as caught:
            draw(path)
        assert str(caught.value) == f"{path}: cannot write: {why}"
    assert files(tmp_path) == ["file", "folder.png"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_what_was_there_stays_whole_when_writing_is_cut_short(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(figure: Any, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"\x89PNG half")
        raise error

    draw(tmp_path / "plot.png")
    before = (tmp_path / "plot.png").read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(UsageError if isinstance(error, OSError) else KeyboardInterrupt):
        draw(tmp_path / "plot.png")
    assert files(tmp_path) == ["plot.png"]
    assert (tmp_path / "plot.png").read_bytes() == before
