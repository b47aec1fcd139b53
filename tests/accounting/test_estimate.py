"""Bytes moved per pass by hand, and a step on a device: what is known, bound, unknown, and that nothing is lost."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from minitl import devices, methods, networks
from minitl.accounting.device import estimate, totals_text
from minitl.accounting.predict import predict
from minitl.accounting.traffic import passes
from minitl.cli import main
from minitl.devices.work import BOUND, KNOWN, UNKNOWN
from minitl.shadow import ShadowTape
from minitl.step import forward_backward


def works(method: str, **attrs: Any) -> dict[tuple[str, str], Any]:
    model = methods.get(method, blocks=1).apply(networks.irb(input_grad=True, **attrs))
    tape = ShadowTape(fused=False)
    forward_backward(model, tape, tape.phantom((2, 7, 7, 96), "float32"), tape.phantom((2,), "int64"))
    return {(w.layer, w.part): w for w in passes(tape.records)}


def test_bytes_moved_by_hand() -> None:
    """96 -> 576 -> 96 channels at 7x7, batch 2: narrow and wide maps, weights, a mask of one bit, codes of two."""
    found = works("ft-blocks", activation="relu6", kernel=3, se_channels=0)
    narrow, wide, weight = 4 * 98 * 96, 4 * 98 * 576, 4 * 96 * 576
    assert found["expand", "forward"].bytes == narrow + weight + wide
    assert found["expand", "grad_input"].bytes == wide + weight + narrow
    assert found["expand", "grad_weight"].bytes == wide + narrow + weight
    codes = 576 * -(-98 * 2 // 8)
    assert found["expand_act", "forward"].bytes == 2 * wide + codes
    assert found["expand_act", "grad_input"].bytes == 2 * wide + codes
    vectors = 4 * 576
    assert found["expand_norm", "forward"].bytes == wide + 4 * vectors + wide + wide + vectors  # y, x_hat, inv_std
    assert found["expand_norm", "grad_input"].bytes == wide + (wide + vectors) + 4 * vectors + wide
    assert found["expand_norm", "grad_weight"].bytes == wide + wide + 2 * vectors
    assert found["add", "forward"].bytes == 3 * narrow
    assert found["add", "grad_input"].bytes == 3 * narrow


def test_every_op_does_its_passes_and_no_others() -> None:
    found = works("mobiletl", activation="relu6", kernel=3, se_channels=0)
    assert ("expand_norm", "grad_weight") in found
    assert ("expand_act", "grad_weight") not in found
    again = works("mobiletl-recompute")
    assert again["depthwise", "recompute"].bytes == again["depthwise", "forward"].bytes


def test_macs_and_flops_of_the_passes_are_the_ledgers() -> None:
    """Also of what is computed three times: in a block that is run again, the part that runs again itself."""
    for method, checkpoint in (
        ("ft-blocks", False), ("mobiletl", False), ("mobiletl-recompute", False), ("mobiletl-recompute", True),
    ):  # fmt: skip
        model = methods.get(method, blocks=2, checkpoint=checkpoint).apply(networks.digits_irb())
        found = estimate(model, devices.get("jetson-nano"), batch=2, resolution=24)
        totals = predict(model, batch=2, resolution=24).totals
        assert sum(row.work.flops for row in found.rows) == totals.flops.total
        assert sum(row.work.macs for row in found.rows) == totals.macs.total
        tape = ShadowTape(fused=False)
        forward_backward(model, tape, tape.phantom((2, 24, 24, 3), "float32"), tape.phantom((2,), "int64"))
        assert sum(row.work.bytes for row in found.rows) == sum(record.cost.moved.total for record in tape.records)
        assert found.peak_bytes == totals.peak_bytes


def test_kinds_are_never_added_up() -> None:
    model = methods.get("ft-all").apply(networks.mobilenet_v2(num_classes=10))
    found = estimate(model, devices.get("ef-train"), batch=8, resolution=224)
    data = found.to_json()
    assert data["known_seconds"] == pytest.approx(2.08, abs=0.005)  # 1x1 convolutions and the stem
    assert data["bound_seconds"] == pytest.approx(0.311, abs=0.0005)
    flops = sum(row.work.flops for row in found.rows if row.answer.kind == KNOWN)
    assert flops / found.seconds(KNOWN) / 51.2e9 == pytest.approx(0.124, abs=0.001)  # of the array's peak
    assert data["known_joules"] == pytest.approx(7.716 * data["known_seconds"])
    assert {row.answer.kind for row in found.rows} == {KNOWN, BOUND, UNKNOWN}
    assert all(row.answer.reason for row in found.rows if row.answer.kind != KNOWN)
    assert all((row.joules is None) == (row.answer.kind != KNOWN) for row in found.rows)
    text = totals_text(found)
    assert f"known 2.081 s + at least 0.3107 s + {data['unknown_rows']} of {len(found.rows)} rows unknown" in text


def test_whether_a_step_fits() -> None:
    model = methods.get("mobiletl", blocks=1).apply(networks.digits_irb())
    answers = [
        estimate(model, devices.get(name), batch=1, resolution=24).fits
        for name in ("raspberry-pi-4", "max78000", "merit")
    ]
    assert answers == [True, False, None]


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["estimate", "digits_irb", "--device", "pulp-8", "--batch", "2", "--blocks", "2"]
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    keys = {"device", "rows", "known_seconds", "bound_seconds", "unknown_rows", "method", "blocks", "batch", "network"}
    assert data["schema"] == "minitl-estimate/1"
    assert keys <= data.keys()
    assert {"layer", "pass", "kind", "seconds", "joules", "reason"} <= data["rows"][0].keys()
    assert data["bound_seconds"] == pytest.approx(sum(row["seconds"] for row in data["rows"]))
    assert main(arguments) == 0
    whole = capsys.readouterr().out
    assert "digits_irb, mobiletl 2, batch 2" in whole.splitlines()[0]
    assert whole.splitlines()[2].startswith("time: at least")
    tables = {by: _cells(capsys, *arguments, "--by", by) for by in ("network", "block")}
    assert not tables["network"]
    assert [row[0] for row in tables["block"]][:2] == ["stem", "block 1"]
    flops = sum(int(row[-2].replace(",", "")) for row in tables["block"])
    assert flops == sum(row["flops"] for row in data["rows"])


def test_the_peak_is_that_of_the_step_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    step = ["mobilenet_v3_small", "--method", "ft-blocks", "--batch", "2", "--resolution", "64", "--optimizer", "none"]
    peaks = []
    for apply in ([], ["--apply"]):
        words = (["inspect", *step, *apply, "--json"], ["estimate", *step, *apply, "--device", "merit", "--json"])
        inspected, estimated = (json.loads(_out(capsys, line)) for line in words)
        peaks.append(estimated["peak_bytes"])
        assert estimated["peak_bytes"] == inspected["totals"]["peak_bytes"]
    assert peaks[1] < peaks[0]


def _out(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def _cells(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The rows of the last table that is printed."""
    assert main(list(words)) == 0
    _, rule, body = capsys.readouterr().out.rpartition("--\n")
    return [re.split(r"  +", line.strip()) for line in body.splitlines()] if rule else []


@pytest.mark.parametrize("option", [["--device", "abacus"], ["--device", "none.toml"], ["--method", "none"]])
def test_bad_usage_exits_2_with_one_line(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "digits_irb", "--device", "merit", *option]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
