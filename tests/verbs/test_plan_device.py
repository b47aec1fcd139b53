"""`plan --device`: the same answers as `estimate`, kinds kept apart, and the device's memory as the budget."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from minitl import devices
from minitl.cli import main

STEP = ["--batch", "1", "--resolution", "24"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, *STEP]) == 0
    return capsys.readouterr().out


def test_a_plan_says_of_each_way_what_estimate_says(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", "digits_irb", "--budget", "1.5MB", "--of", "peak", "--device", "ef-train"]
    found = json.loads(told(capsys, *plan, "--json"))
    ways = [*found["pareto"], found["next"]]
    for way in (found["best"], ways[-1]):
        blocks = ["--blocks", str(way["blocks"])] if way["blocks"] else []
        step = ["estimate", "digits_irb", "--device", "ef-train", "--method", way["method"], *blocks, "--json"]
        alone = json.loads(told(capsys, *step))
        assert way["device"]["device"] == "ef-train"
        for name in ("known_seconds", "bound_seconds", "unknown_rows", "known_joules", "fits"):
            assert way["device"][name] == alone[name]
        assert way["peak_bytes"] == alone["peak_bytes"]
    text = told(capsys, *plan)
    assert "rows unknown" in text
    assert all("  known " in line and " s + " in line for line in text.splitlines() if " rows unknown" in line)
    lines = list(csv.DictReader(io.StringIO(told(capsys, *plan, "--csv"))))
    assert len(lines) > len(ways)
    assert all(line["device"] == "ef-train" and int(line["device_unknown_rows"]) > 0 for line in lines)


def test_the_devices_memory_is_the_budget_of_the_peak(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits_irb", "--device", "stm32h743", "--json", "--batch", "1", "--resolution", "16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["budget_bytes"], found["of"]) == (devices.get("stm32h743").value("memory_bytes"), "peak")
    assert found["best"]["device"]["fits"] is True
    assert found["next"]["device"]["fits"] is False
    assert found["best"]["device"]["known_joules"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "merit"], "the memory of merit is not published; give a --budget"),
        ([], "nothing to plan for; give a --budget"),
        (["--device", "abacus", "--budget", "1MB"], "unknown device 'abacus'"),
    ],
)
def test_what_cannot_be_planned(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits_irb", *arguments, *STEP]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
