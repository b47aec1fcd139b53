"""`minitl oracle list | export | check | spec`."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import minitl
from minitl import cli, oracle
from minitl.oracle.recipes import ATTRS


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = cli.main(["oracle", *map(str, arguments)])
    except SystemExit as left:
        code = int(left.code or 0)
    return code, *capsys.readouterr()


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    assert found["schema"] == "minitl-oracle/1"
    return found


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    names = [row["case"] for row in as_json(capsys, "list")["cases"]]
    assert names == [entry.name for entry in oracle.entries()]
    assert all(row["op"] == "irb" for row in as_json(capsys, "list", "irb-*")["cases"])
    assert "depthwise_conv-k7-s2" in run(capsys, "list")[1]


def test_export_of_built_in_cases(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    exported = as_json(capsys, "export", tmp_path, "linear*", "--layout", "nchw", "--dtype", "float64")["exported"]
    assert {entry["case"] for entry in exported} == {path.name for path in tmp_path.iterdir()}
    assert oracle.load(tmp_path / "linear").dtype == "float64"


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_pattern_may_stand_behind_options_and_there_is_one(
    behind: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = [("--layout", "nchw"), ("--op", "linear")]
    options.insert(behind, ("*-frozen",))
    words = [word for option in options for word in option]
    assert [entry["case"] for entry in as_json(capsys, "export", tmp_path, *words)["exported"]] == ["linear-frozen"]
    code, out, err = run(capsys, "export", tmp_path, *words, "conv*")
    assert (code, out) == (2, "")
    assert "unrecognized arguments: conv*; there may be one PATTERN only" in err


def test_export_of_a_case_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    attrs = "in_channels=4 expanded_channels=9 out_channels=4 kernel=3 stride=1 activation=hard_swish se_channels=0"
    pairs = [f"--attr={pair}" for pair in (*attrs.split(), "eps=1e-3", "momentum=0.01")]
    size = ("--batch", 2, "--height", 5, "--width", 3, "--seed", 7, "--dtype", "float64", "--layout", "nchw")
    code, out, _ = run(capsys, "export", tmp_path, "--op", "irb", "--method", "mobiletl", *pairs, *size)
    assert (code, "wrote 1 case," in out) == (0, True)
    case = oracle.load(tmp_path / "irb-mobiletl-seed7")
    assert (case.layout, case.tensors["input.x"].shape) == ("nchw", (2, 4, 5, 3))


def test_export_of_built_in_cases_in_another_form(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    form = ("--batch", 1, "--height", 6, "--width", 6, "--weights", "hwio", "--layout", "nchw")
    exported = as_json(capsys, "export", tmp_path, "conv-k3*", *form)["exported"]
    assert {entry["case"] for entry in exported} == {"conv-k3-s1-1x6x6", "conv-k3-s2-1x6x6"}
    case = oracle.load(tmp_path / "conv-k3-s2-1x6x6")
    assert (case.tensors["input.x"].shape, case.tensors["param.weight"].shape) == ((1, 3, 6, 6), (3, 3, 3, 4))


def test_op_and_method_choose_among_those_a_pattern_matches(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    every = {row["case"]: row["method"] for row in as_json(capsys, "list", "irb-mobiletl-*")["cases"]}
    assert set(every.values()) == {"mobiletl", "mobiletl-exact", "mobiletl-recompute"}
    chosen = as_json(capsys, "list", "irb-mobiletl-*", "--method", "mobiletl")["cases"]
    assert [row["case"] for row in chosen] == [name for name, method in every.items() if method == "mobiletl"]
    assert {row["op"] for row in as_json(capsys, "list", "--op", "linear")["cases"]} == {"linear"}
    exported = as_json(capsys, "export", tmp_path, "*-frozen", "--op", "linear")["exported"]
    assert [entry["case"] for entry in exported] == ["linear-frozen"]
    exported = as_json(capsys, "export", tmp_path, "irb-mobiletl-*-k7-s2", "--method", "mobiletl")["exported"]
    assert [entry["case"] for entry in exported] == ["irb-mobiletl-relu6-k7-s2"]


def test_who_waits_is_told_why_in_a_pipe_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, "export", tmp_path, "linear")[2] == ""
    monkeypatch.setattr("minitl.verbs.oracle_cases.SLOW", 0.0)
    assert "compiled once" in run(capsys, "export", tmp_path, "linear")[2]
    assert as_json(capsys, "export", tmp_path, "linear")["exported"]  # which says nothing else


def test_help_tells_every_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # a narrow terminal breaks words
    text = run(capsys, "export", "--help")[1]
    for op, attrs in ATTRS.items():
        (told,) = re.findall(rf"^  {op} +(.*(?:\n {{3,}}.*)*)", text, flags=re.MULTILINE)  # a long line goes on below
        assert [word.split("=")[0] for word in told.split() if "=" in word] == list(attrs)


def test_export_with_a_c_header(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "export", tmp_path, "linear", "--format", "c")
    assert "GRAD_PARAM_WEIGHT" in (tmp_path / "linear" / "linear.h").read_text()


def test_a_checkout_that_is_not_installed_knows_its_version(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_installed(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.Distribution.from_name", not_installed)
    assert run(capsys, "export", tmp_path, "linear", "--format", "c")[0] == 0
    assert f"generated by minitl {minitl.__version__} " in (tmp_path / "linear" / "linear.h").read_text()


def test_spec(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "spec")
    assert code == 0
    assert as_json(capsys, "spec")["spec"] == out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("list", "nothing*"),
        ("export", "{tmp}", "nothing*"),
        ("export", "{tmp}", "--op", "irc"),
        ("export", "{tmp}", "--op", "conv", "--attr", "colour=3"),
        ("export", "{tmp}", "--op", "conv", "--attr", "kernel"),
        ("export", "{tmp}", "--op", "conv", "--attr", "kernel=three"),
        ("export", "{tmp}", "--op", "conv", "--attr", "kernel=4"),
        ("export", "{tmp}", "--op", "conv", "--batch", "0"),
        ("export", "{tmp}", "--op", "conv", "linear*"),
        ("export", "{tmp}", "--attr", "kernel=3", "conv*"),
        ("export", "{tmp}", "--seed", "3", "conv*"),
        ("export", "{tmp}", "--method", "mobiletl"),
        ("list", "irb*", "--method", "nothing"),
        ("export", "{tmp}", "--batch", "3"),
        ("export", "{tmp}", "--seed", "3"),
        ("export", "{tmp}", "linear", "--batch", "0"),
        ("export", "{tmp}", "linear", "--weights", "iohw"),
        ("export", "{tmp}", "--op", "conv", "--attr", "padding=full"),
        ("export", "{tmp}", "--op", "irb", "--attr", "activation=silu"),
        ("export", "{tmp}", "--layout", "hwc"),
        ("export", "{tmp}", "--dtype", "float16"),
        ("export", "{tmp}/file/below", "linear"),
    ],
)
def test_bad_usage_is_one_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, err = run(capsys, *(a.format(tmp=tmp_path) for a in arguments))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
