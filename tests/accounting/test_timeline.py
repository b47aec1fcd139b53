"""The timeline: its peak is the predicted one, every array says what it is, and what is shown of it is true."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from models import trained

import minitl
from minitl.accounting import Timeline, arena, predict, timeline
from minitl.accounting.moment import BACKWARD, FORWARD
from minitl.cli import main
from minitl.networks import Model

CASES: list[tuple[str, str, int | None, dict[str, Any]]] = [
    ("digits_irb", "ft-all", None, {}),
    ("digits_irb", "mobiletl", 3, {"quantised": True}),
    ("digits_irb", "mobiletl-recompute", 4, {}),
    ("digits_irb", "ft-blocks", 2, {"checkpoint": True}),
    ("digits_irb", "back-razor", None, {}),
]
SMALL = ("inspect", "digits_irb", "--batch", "2", "--blocks", "2")


def line_of(model: Model, **options: Any) -> Timeline:
    return timeline(model, batch=2, resolution=32, **options)


@pytest.mark.parametrize(("network", "method", "blocks", "options"), CASES, ids=[case[1] for case in CASES])
@pytest.mark.parametrize("apply", [False, True])
def test_every_moment_is_the_sum_of_what_is_alive(
    network: str, method: str, blocks: int | None, options: dict[str, Any], apply: bool
) -> None:
    model = trained(minitl.networks.get(network, num_classes=10), method, blocks, **options)
    line = line_of(model, optimizer_slots=1, apply=apply)
    totals = predict(model, batch=2, resolution=32, optimizer_slots=1, apply=apply).totals
    assert line.peak.bytes == totals.peak_bytes == max(m.bytes for m in line.moments)
    kinds = line.by_kind()
    for m in line.moments[:: max(1, len(line.moments) // 20)]:
        assert m.bytes == sum(b.bytes for b in line.alive(m.at)) == sum(steps[m.at] for steps in kinds.values())
    at_turn = [b for b in line.alive(line.turn.at) if b.kind == "kept"]
    assert sum(b.bytes for b in at_turn) == totals.kept_bytes
    assert sum(b.bytes for b in line.buffers if b.always) == totals.resident_bytes
    gradients = [b for b in line.buffers if b.kind == "parameter gradients"]
    assert {b.name.removesuffix(".gradient") for b in gradients} >= {p.name for p in model.parameters() if p.trained}
    collected = sum(p.nbytes for p in model.parameters() if p.trained)
    assert kinds["parameter gradients"][-1] == collected if not apply else max(kinds["parameter gradients"]) < collected


def test_a_buffer_says_what_it_is_and_until_when() -> None:
    line = line_of(trained(minitl.networks.mobilenet_v2(num_classes=10), "mobiletl", 2))
    kept = {(b.layer, b.name): b for b in line.buffers if b.kind == "kept"}
    b = kept["features.17.conv.1.0", "x"]
    assert b.why == "depthwise input, kept for the weight's gradient"
    # in the end its gradient is written over it
    assert (b.shape, b.dtype, b.until) == (
        (2, 1, 1, 960),
        "float32",
        "backward of features.17.conv.0.0",
    )
    assert line.moments[b.first].where == "forward of features.17.conv.0.0"
    assert kept["features.17.conv.1.2", "mask"].why == "depthwise act slopes as bits, kept for the input's gradient"
    assert next(b for b in line.buffers if b.name == "images").until == "the end"


def test_extremes_are_the_least_and_the_most_of_each_visit() -> None:
    line = line_of(trained(minitl.networks.digits_irb(), "mobiletl", 2))
    found = line.extremes()
    assert len(found) < len(line.moments)
    assert {line.peak, line.turn} <= set(found)
    assert [m.at for m in found] == sorted({m.at for m in found})
    assert {m.where for m in found} == {m.where for m in line.moments}
    assert [m.going for m in line.moments] == sorted((m.going for m in line.moments), key=[FORWARD, BACKWARD].index)


def test_the_arena_places_what_the_timeline_lists() -> None:
    model = trained(minitl.networks.digits_irb(), "mobiletl", 2)
    line, found = line_of(model, apply=True), arena(model, batch=2, resolution=32, apply=True)
    assert [(b.name, b.bytes, b.first, b.last, b.kind) for b in found.buffers] == [
        (b.name, b.bytes, b.first, b.last, b.kind) for b in line.buffers
    ]
    assert found.lower_bound_bytes == line.peak.bytes <= found.size_bytes <= 1.05 * line.peak.bytes
    assert all(b.offset % 64 == 0 for b in found.buffers)


# As the command line shows it


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = read(capsys, "--timeline")
    line = found["timeline"]
    assert line["peak_bytes"] == found["totals"]["peak_bytes"] == sum(row["bytes"] for row in line["alive_at_peak"])
    assert line["moments"][line["peak_at"]] == {
        "at": line["peak_at"], "bytes": line["peak_bytes"], "layer": line["peak_layer"], "pass": line["peak_pass"],
    }  # fmt: skip
    several = read(capsys, "--timeline", "--method", "ft-blocks,mobiletl")["inspections"]
    assert several[1] == {name: value for name, value in found.items() if name != "schema"}
    assert several[0]["timeline"]["peak_bytes"] > line["peak_bytes"]


def test_apply_and_threads_are_for_the_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    of_one = "--method", "ft-blocks", "--blocks", "3", "--batch", "1"
    plain, applied = (read(capsys, *of_one, *more)["totals"] for more in ((), ("--apply",)))
    assert applied["gradient_bytes"] < plain["gradient_bytes"]
    assert applied["peak_bytes"] < plain["peak_bytes"]
    one, four = (read(capsys, "--threads", n, "--timeline") for n in ("1", "4"))
    assert (one["threads"], four["threads"]) == (1, 4)
    scratch = [max(b["bytes"] for b in f["timeline"]["alive_at_peak"] if b["kind"] == "scratch") for f in (one, four)]
    assert scratch[0] <= scratch[1]


def test_text_names_the_largest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_irb", "--batch", "2", "--method", "ft-all", "--timeline"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"Peak: [\d,]+ bytes in (for|back)ward of \w[\w.]* \(moment \d+ of \d+\)\. Alive then:", text)
    assert "depthwise input, kept for the weight's gradient" in text
    assert "held between steps" in text


def test_files_are_written_by_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    names = ["a.json", "a.h", "page.html", "line.png"]
    for option, name in zip(("--arena", "--arena", "--html", "--plot"), names, strict=True):
        assert main([*SMALL, "--timeline", option, str(tmp_path / name)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    placed = json.loads((tmp_path / "a.json").read_text())
    header = dict(re.findall(r"#define (\w+) (\d+)u", (tmp_path / "a.h").read_text()))
    offsets = [int(value) for name, value in header.items() if name.endswith("_OFFSET")]
    assert int(header["MINITL_ARENA_BYTES"]) == placed["size_bytes"]
    assert offsets == [b["offset"] for b in placed["buffers"]]
    assert (tmp_path / "a.h").read_text().count("#define") == 2 + 2 * len(offsets), "two buffers of one name"
    page = (tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r'(src|href)="', re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)), "not by itself"
    rows = predict(trained(minitl.networks.digits_irb(), "mobiletl", 2), batch=2, resolution=24).rows
    assert page.count('<td class=n data-value="') == 2 * len(rows)
    assert capsys.readouterr().out.count("wrote ") == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arena", "none/a.h"], "none/a.h: cannot write: No such file or directory"),
        (["--arena", "a.txt"], "unknown file type '.txt' of a.txt; use .json or .h"),
        (["--html", "page"], "unknown file type '' of page; use .html"),
        (["--arena", "a.h", "--method", "mobiletl,ft-blocks"], "one where there is --arena"),
        (["--threads", "0"], "expected a count from 1 to 1024, got 0"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main([*SMALL, *arguments])
    except SystemExit as left:
        code = int(str(left.code))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not list(tmp_path.iterdir())


def test_a_page_without_plotly_has_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert main([*SMALL, "--html", str(tmp_path / "page.html")]) == 2
    assert "--html needs plotly; pip install 'minitl[html]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_local_that_holds_a_kept_array_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the walk back holds the last gradient it was given, as it once did."""
    module = import_module("minitl.accounting.trace")
    model = trained(minitl.networks.digits_irb(), "mobiletl", 2)
    original, held = module.TracingTape._accumulate, list[Any]()

    def hoard(self: Any, pending: Any, source: Any, gradient: Any, gy: Any = None) -> None:
        held[:] = [gradient] if isinstance(source, int) else held
        original(self, pending, source, gradient, gy)

    before = sum(m.bytes for m in line_of(model).moments)
    monkeypatch.setattr(module.TracingTape, "_accumulate", hoard)
    assert sum(m.bytes for m in line_of(model).moments) > before
