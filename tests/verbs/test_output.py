"""What is printed: several methods side by side, tidy CSV, tables that fit a terminal, completion."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minitl.accounting.table import table
from minitl.cli import main
from minitl.verbs.parsing import wrapped
from minitl.verbs.terminal import broken, show

DIGITS = ("inspect", "digits_irb", "--batch", "2")
ABOUT = ["network", "method", "blocks", "batch", "resolution"]
Captured = pytest.CaptureFixture[str]


def out(capsys: Captured, *arguments: str) -> str:
    assert main(arguments) == 0
    got = capsys.readouterr()
    assert got.err == ""
    return got.out


def lines(capsys: Captured, *arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out(capsys, *arguments, "--csv"))))


# Several methods


def test_several_methods_are_the_inspections_of_each(capsys: Captured) -> None:
    names = ["ft-all", "mobiletl", "mobiletl-exact"]
    data = json.loads(out(capsys, *DIGITS, "--method", ",".join(names), "--blocks", "2", "--json", "--measure"))
    assert data.keys() == {"schema", "inspections"}
    assert [one["method"] for one in data["inspections"]] == names
    assert [one["blocks"] for one in data["inspections"]] == [None, 2, 2]
    for name, one in zip(names, data["inspections"], strict=True):
        alone = json.loads(
            out(capsys, *DIGITS, "--method", name, *(["--blocks", "2"] if one["blocks"] else []), "--json")
        )
        measured = one.pop("measured")
        assert measured["held_bytes"] == one["totals"]["kept_bytes"]
        assert {"schema": "minitl-inspect/1", **one} == alone


@pytest.mark.parametrize("by", ["layer", "block", "network"])
def test_several_methods_stand_side_by_side(by: str, capsys: Captured) -> None:
    text = out(capsys, *DIGITS, "--method", "ft-blocks,mobiletl", "--blocks", "2", "--by", by)
    for name in ("ft-blocks", "mobiletl"):
        totals = json.loads(out(capsys, *DIGITS, "--method", name, "--blocks", "2", "--json"))["totals"]
        for quantity in ("kept_bytes", "total_bytes", "peak_bytes"):
            assert f"{totals[quantity]:,}" in text
    assert ("block 6" in text) == (by == "block")
    assert ("features.7" in text) == (by == "layer")


@pytest.mark.parametrize("words", ["mobiletl,mobiletl", "ft-all,mobiletl --against ft-bias"])
def test_methods_that_cannot_stand_side_by_side(words: str, capsys: Captured) -> None:
    assert main([*DIGITS, "--method", *words.split()]) == 2
    assert "cannot be shown side by side" in capsys.readouterr().err


# Tidy CSV


def test_csv_by_layer_has_a_line_per_buffer_of_every_method(capsys: Captured) -> None:
    got = lines(capsys, *DIGITS, "--method", "mobiletl", "--blocks", "2", "--against", "ft-all")
    assert list(got[0])[:7] == [*ABOUT, "block", "layer"]
    assert {(row["network"], row["batch"], row["resolution"]) for row in got} == {("digits_irb", "2", "24")}
    assert {(row["method"], row["blocks"]) for row in got} == {("mobiletl", "2"), ("ft-all", "")}
    for method, words in {"mobiletl": ("--blocks", "2"), "ft-all": ()}.items():
        data = json.loads(out(capsys, *DIGITS, "--method", method, *words, "--json"))
        own = [(row["layer"], row["tensor"], int(row["bytes"])) for row in got if row["method"] == method]
        assert own == [(row["layer"], row["tensor"], row["bytes"]) for row in data["rows"]]


@pytest.mark.parametrize("chosen", [("--method", "ft-blocks,lora"), ("--against", "lora"), ("--against", "rep-net")])
def test_layers_that_a_method_adds_are_told_with_their_block(capsys: Captured, chosen: tuple[str, ...]) -> None:
    text = out(capsys, "inspect", "digits_irb", *chosen, "--by", "block")
    assert "block 6" in text
    assert "features." not in text


def test_csv_by_block_and_by_network(capsys: Captured) -> None:
    chosen = ("--method", "mobiletl,ft-last")
    data = json.loads(out(capsys, *DIGITS, *chosen, "--by", "block", "--json"))
    kept = {one["method"]: one for one in data["inspections"]}
    blocks = lines(capsys, *DIGITS, *chosen, "--by", "block")
    assert list(blocks[0]) == [*ABOUT, "block", "bytes"]
    for method, one in kept.items():
        own = {row["block"]: int(row["bytes"]) for row in blocks if row["method"] == method}
        assert own == one["by_block"]
    whole = lines(capsys, *DIGITS, *chosen, "--by", "network")
    assert [row["method"] for row in whole] == ["mobiletl", "ft-last"]
    for row in whole:
        for name in ("kept_bytes", "total_bytes", "peak_bytes"):
            assert int(row[name]) == kept[row["method"]]["totals"][name]


def test_plan_as_csv_has_every_way(capsys: Captured) -> None:
    plan = ("plan", "digits_irb", "--batch", "2", "--budget", "4MB")
    data, got = json.loads(out(capsys, *plan, "--json")), lines(capsys, *plan)
    ways = [(row["method"], row["blocks"], int(row["total_bytes"])) for row in got]
    assert len(set(ways)) == len(ways) > 20
    assert [row["method"] for row in got if row["best"] == "True"] == [data["best"]["method"]]
    assert sum(row["pareto"] == "True" for row in got) == len(data["pareto"])
    assert all((int(row["peak_bytes"]) <= 4_000_000) == (row["fits"] == "True") for row in got)


# Terminals

ROWS = [("a" * 30, "b" * 30, "1,234"), ("c", "d", "5")]
WIDE = table(("name", "less", "bytes"), ROWS, right=(2,), optional=("less",))


def pretend_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("rich", ["installed", "missing"])
def test_a_narrow_terminal_gets_what_it_has_room_for(
    rich: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rich == "installed":
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    pretend_terminal(monkeypatch)
    show("text", WIDE)
    got = capsys.readouterr().out
    assert ("\x1b[" in got) == (rich == "installed")
    assert "less" not in got.split("(no room")[0]
    assert " ".join(got.split()).endswith("(no room for less: see them in a wider terminal, a pipe, or --json)")
    assert "1,234" in got


def test_a_pipe_gets_everything_plainly(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    show("text", WIDE)
    assert capsys.readouterr().out == f"text\n\n{WIDE}\n"


LINES = """
import sys
from minitl.cli import main

for line in sys.argv[1:]:
    print(f"\\0{line}", flush=True)
    try:
        assert main(line.split()) == 0, line
    except SystemExit as left:  # argparse's way out
        assert left.code == 0, line
"""
TERMINAL = f"""
import os, pty, sys
os.environ.update(COLUMNS="80", TERM="xterm", NO_COLOR="1")
sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, "-c", {LINES!r}, *sys.argv[1:]])))
"""


def test_a_real_terminal_of_80_columns_is_wide_enough() -> None:
    lines = [
        "inspect irb", "inspect irb --against ft-blocks", "inspect mobilenet_v3_small --by block",
        "inspect digits_irb --method ft-all,ft-blocks,mobiletl", "plan digits_irb --budget 4MB", "reproduce table1",
        "inspect irb --measure --method mobiletl-exact", "oracle list", "--help", "inspect --help", "compare --help",
        "train --help", "estimate digits_irb --device raspberry-pi-4",
    ]  # fmt: skip
    got = subprocess.run([sys.executable, "-c", TERMINAL, *lines], capture_output=True, text=True, check=True)
    told = [part.splitlines() for part in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", got.stdout).split("\0")[1:]]
    assert [line for line, *_ in told] == lines
    for line, *rows in told:
        assert rows, line
        assert [row for row in rows if len(row) > 80] == [], line


def test_help_is_broken_between_words_and_in_a_long_list_after_a_comma(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in ("60", "80", "100"):
        monkeypatch.setenv("COLUMNS", columns)
        for verb in ("compare", "train", "inspect", "estimate"):
            with pytest.raises(SystemExit):
                main([verb, "--help"])
            rows = capsys.readouterr().out.splitlines()
            assert not any(re.search(r"\w-$|--\w+ \\\\$", row) for row in rows)
            assert columns == "60" or max(map(len, rows)) <= int(columns)
    assert wrapped("a" * 10 + " bc,d " + "efg-h," * 6 + "i", 12) == [
        "aaaaaaaaaa", "bc,d efg-h,", "efg-h,efg-h,", "efg-h,efg-h,", "efg-h,i",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["features.4.conv.2.scale_activation", "a.b", "a" * 50, f"{'a' * 30}.{'b' * 30}", ""])
def test_a_long_name_is_broken_after_a_dot(name: str) -> None:
    for room in (12, 20, 26, 34):
        rows = broken(name, room).split("\n")
        assert "".join(rows) == name
        assert max(map(len, rows)) <= room
    assert broken("features.4.conv.2.activation", 26) == "features.4.conv.2.\nactivation"


# Completion


def completions(tmp_path: Path, words: str) -> list[str]:
    file = tmp_path / "completions"
    environment: dict[str, Any] = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(file),
        "COMP_LINE": words, "COMP_POINT": str(len(words)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    for name in ("mine.toml", "mine.txt", "photos.safetensors"):
        (tmp_path / name).touch()
    subprocess.run([sys.executable, "-m", "minitl"], env=environment, cwd=tmp_path, check=True)
    return file.read_text().split("\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("minitl insp", "inspect"), ("minitl inspect mobilenet_v3_s", "mobilenet_v3_small"),
        ("minitl inspect irb --meth", "--method"), ("minitl inspect irb --method mobiletl-r", "mobiletl-recompute"),
        ("minitl plan irb --of fl", "flops"), ("minitl train photos --method mobiletl-r", "mobiletl-recompute"),
        ("minitl inspect irb --method ft-all,mobiletl-r", "ft-all,mobiletl-recompute"),
        ("minitl inspect irb --against lora-", "lora-fa"), ("minitl estimate irb --device pul", "pulp-8"),
        ("minitl train photos --network mobilenet_v3_s", "mobilenet_v3_small"), ("minitl reproduce tabl", "table1"),
        ("minitl inspect mi", "mine.toml"), ("minitl train photos --optimizer nest", "nesterov"),
        ("minitl train photos --source torch", "torchvision"), ("minitl plan ph", "photos.safetensors"),
    ],
)  # fmt: skip
def test_words_are_completed(words: str, expected: str, tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    assert [word.strip() for word in completions(tmp_path, words)] == [expected]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("argcomplete")
    with pytest.raises(SystemExit):
        main(["--completion", shell])
    assert "minitl" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)
    assert main(["--completion", shell]) == 2
    assert capsys.readouterr().err == "minitl: completion needs argcomplete; pip install 'minitl[demo]'\n"
