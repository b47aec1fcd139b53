"""The command line keeps its promises: exit codes, one line for bad input, one JSON object, whole files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import minitl
from minitl.accounting import Measured
from minitl.cli import VERBS, main, parser
from minitl.errors import ValueRangeError
from minitl.methods import METHODS
from minitl.training.adapt import Task
from minitl.training.progress import Bar
from minitl.training.search import Result
from minitl.training.workers import deaf
from minitl.verbs.plan import parse_budget
from minitl.verbs.reproduce import ITEMS

MINITL = [sys.executable, "-m", "minitl"]
DIGITS = ("inspect", "digits_irb", "--batch", "2")


class Ran(NamedTuple):
    """What a call gave."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Ran:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as left:  # argparse's way out
            code = int(str(left.code))
        return Ran(code, *capsys.readouterr())

    return run


def read(ran: Ran, verb: str) -> dict[str, Any]:
    """The one JSON object on stdout."""
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("\n") == 1
    data = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data.pop("schema") == f"minitl-{verb}/1"
    return data


# Bad input

BAD = {
    "inspect resnet": "unknown network 'resnet'; choose one of: mobilenet_v2, mobilenet_v3_small",
    "inspect digits_irb --method mobile-tl": "(did you mean 'mobiletl'?)",
    "inspect digits_irb --against ft-lots": "unknown method 'ft-lots'",
    "inspect digits_irb --blocks 0": "digits_irb: expected blocks from 1 to 7, got 0",
    "inspect digits_irb --blocks 8": "digits_irb: expected blocks from 1 to 7, got 8",
    "inspect digits_irb --blocks two": "argument --blocks: invalid int value: 'two'; see minitl inspect --help",
    "inspect digits_irb --method ft-all --blocks 2": "method ft-all does not take a number of blocks, got blocks=2",
    "inspect digits_irb --rule hard_swish=few3": "unknown backward rule 'few3'",
    "inspect digits_irb --rule hard_swish": "expected --rule WHAT=RULE, got 'hard_swish'",
    "inspect digits_irb --rule hard_swish=": "expected a backward rule for hard_swish, got none",
    "inspect digits_irb --rule middle_act=sign": "unknown activation or role 'middle_act'; c",
    "inspect digits_irb --rule expand=sign": "unknown backward rule 'sign'; choose one of: exact, quantised8",
    "inspect digits_irb --rule stem=filter3": "features.0.0: unknown backward rule 'filter3' (did you mean 'filter7'?)",
    "inspect digits_irb --rule expand=channels": "for rule channels, got (); method sparse-update chooses them",
    "inspect digits_irb --method mobiletl-exact --rule depthwise=quantised2": "rule quantised2 encodes; give one of",
    "inspect digits_irb --method rep-net --resolution 3": "a map of at least 4 x 4, got 3 x 3; use larger images",
    "inspect irb --method tinytl-l": "irb (tinytl-l): its side modules need a whole network, not a single block",
    "compare --methods lora:2+project=filter3": "unknown backward rule 'filter3' (did you mean 'filter7'?)",
    "inspect irb --attr colour=red": "unknown attribute 'colour=red'; choose one of: in_channels=...",
    "inspect irb --attr kernel": "unknown attribute 'kernel'",
    "inspect irb --attr kernel=large": "expected --attr kernel like 5, got 'large'",
    "inspect irb --attr kernel=99999999": "expected --attr kernel like 5, got '99999999'",
    "inspect irb --attr kernel=4": "irb: expected kernel to be an odd number, got 4",
    "inspect irb --attr expand=maybe": "expected --attr expand like True, got 'maybe'",
    "inspect irb --attr activation=gelu": "unknown activation 'gelu'",
    "inspect irb --classes 10": "irb: a single block has no classes; leave --classes out",
    "inspect irb --method ft-last": "depends on no trained parameter; apply a method that trains a part of it",
    "inspect digits_irb --attr kernel=3": "digits_irb: --attr is for an irb; leave --attr out",
    "inspect digits_irb --classes 0": "digits_irb: expected num_classes a whole number from 1 to 1048576, got 0",
    "inspect digits_irb --dtype float16": "expected float32 or float64, got float16",
    "inspect digits_irb --optimizer lion": "unknown optimizer 'lion'; choose one of: none, adam, adamw, sgd, nesterov",
    "inspect digits_irb --batch 0": "digits_irb: expected batch of at least 1, got 0",
    "inspect digits_irb --batch -3 --measure": "digits_irb: expected batch of at least 1, got -3",
    "inspect digits_irb --resolution 0": "digits_irb: expected resolution of at least 1, got 0",
    "inspect digits_irb --method ft-all --batch 1 --resolution 4": "expected at least two values per channel",
    "inspect digits_irb --by colour": "argument --by: invalid choice: 'colour'",
    "inspect digits_irb --plot plot.txt": "plot: unknown file type '.txt' of plot.txt; use .png, .pdf or .svg",
    "inspect digits_irb --plot nowhere/plot.png": "nowhere/plot.png: cannot write: No such file or directory",
    "inspect": "the following arguments are required: NETWORK; see minitl inspect --help",
    "inspect digits_irb --colour": "unrecognized arguments: --colour",
    "inspect digits_irb --metod mobiletl": "unrecognized arguments: --metod mobiletl (did you mean '--method'?); see",
    "inspect mobilenetv2": "(did you mean 'mobilenet_v2'?)",
    "inspect irbs": "(did you mean 'irb'?)",
    "inspect digits_irb --batch 9223372036854775808": "argument --batch: '9223372036854775808' is beyond",
    "inspekt": "argument VERB: invalid choice: 'inspekt' (did you mean 'inspect'?) (choose from bench, compare",
    "plan digits_irb": "nothing to plan for; give a --budget",
    "plan digits_irb --budget 16MiBs": "budget: cannot read '16MiBs' as bytes; write it like 16MiB (2^20), 40MB (1e6)",
    "plan digits_irb --budget 2GFLOPs --of kept": "budget: cannot read '2GFLOPs' as bytes",
    "plan digits_irb --budget 1MiB --of flops": "budget: cannot read '1MiB' as FLOPs; write it like 2GFLOPs or 500M",
    "plan digits_irb --budget 1e99": "budget: cannot read '1e99'",
    "plan digits_irb --budget 1kB": "no method fits 1,000 bytes of peak; the smallest that would takes",
    "plan digits_irb --budget 1B --of kept": "1 bytes of kept; the smallest that would takes 6,528 (ft-last)",
    "plan digits_irb --budget 40": "budget: 40 bytes are too few; did you mean 40MB?",
    "plan digits_irb --budget 2 --of flops": "budget: 2 FLOPs are too few; did you mean 2MFLOPs?",
    "plan digits_irb --budget -5MB": "budget: cannot read '-5MB' as bytes; write it like 16MiB (2^20), 40MB (1e6)",
    "inspect none.toml": "none.toml: cannot read: No such file or directory",
    "plan digits_irb --budget 1MB --of time": "argument --of: invalid choice: 'time'",
    "plan digits_irb --budget 1MB --rule relu6=sign": "digits_irb: unknown activation or role 'relu6'",
    "plan mobilenet_v3_small --budget 1GB --batch 1 --resolution 32": "expected at least two values per channel",
    "plan digits_irb --budget 1MB --plot plot": "plot: unknown file type '' of plot",
    "reproduce table2": "unknown item 'table2'",
    "reproduce table1 --plot nowhere/plot.png": "nowhere/plot.png: cannot write: No such file",
    "reproduce table1 --plot plot.pgf": "plot: unknown file type '.pgf' of plot.pgf; use .png, .pdf or .svg",
    "compare --seeds 0": "compare: expected seeds from 1 to 1000, got 0",
    "compare --workers 0": "compare: expected workers from 1 to 256, got 0",
    "compare --methods ft-lots": "unknown method 'ft-lots'",
    "compare --methods ": "unknown method ''",
    "compare --methods ft-last,ft-last": "expected at least one method, each once",
    "compare --methods mobiletl:8": "digits_irb: expected blocks from 1 to 7, got 8",
    "compare --methods mobiletl:two": "expected METHOD:BLOCKS, got 'mobiletl:two'",
    "compare --methods mobiletl+int4": "unknown option 'int4'",
    "compare --plots file": "plots: cannot make the folder file: File exists",
    "teach": "argument VERB: invalid choice: 'teach'",
    "--json": "the following arguments are required: VERB; see minitl --help",
}  # fmt: skip


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_on_stderr_and_exit_2(
    line: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    words = [] if not line else line.split(" ")
    got = cli(*words, *["--json"] * (len(line) % 2 and len(words) > 1))  # with or without makes no difference
    assert (got.code, got.out) == (2, "")
    assert got.err.count("\n") == 1
    assert got.err.startswith(f"minitl {words[0]}: " if words and words[0] in VERBS else "minitl: ")
    assert BAD[line] in got.err
    assert not re.search(r"(?<!\S)(\S+: )\1", got.err)  # as `plan: plan:`
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_memory_is_one_line_too(cli: Cli) -> None:
    """10^13 bytes of images and more: no machine has them, and nothing is tried before they are asked for."""
    got = cli("inspect", "digits_irb", "--method", "ft-last", "--measure", "--batch", 2 * 10**9)
    assert (got.code, got.out, got.err.count("\n")) == (2, "", 1)
    assert "does not fit into memory; measure a smaller batch" in got.err


def test_an_internal_error_is_no_verdict(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("not bad\ninput")

    monkeypatch.setattr("minitl.verbs.inspect.predict", broken)
    line = "minitl inspect: internal error: ValueError: not bad\\ninput; --traceback shows where\n"
    assert cli(*DIGITS) == (70, "", line)
    for words in (["--traceback", *DIGITS], [*DIGITS, "--traceback"]):
        got = cli(*words)
        assert (got.code, got.out) == (70, "")
        assert got.err.startswith("Traceback")
        assert "in broken\n" in got.err
        assert got.err.endswith(line)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (PermissionError(13, "Permission denied", "a file"), 2, "a file: Permission denied"),
        (BrokenPipeError(32, "Broken pipe"), 2, "Broken pipe"),  # not stdout's, but a process's that ended
        (MemoryError(), 2, "not enough memory: use a smaller batch"),
        (OverflowError("too large"), 70, "internal error: OverflowError: too large; --traceback shows where"),
    ],
)
def test_every_error_is_one_line(
    error: Exception, code: int, message: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("minitl.verbs.inspect.predict", refused)
    assert cli(*DIGITS) == (code, "", f"minitl inspect: {message}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "digits\nirb"], ["in\nspect"], ["inspect", "digits_irb", "--co\nlour"],
        ["inspect", "\x1b[2J\udcff"], ["inspect", "digits_irb", "--blocks", "1\n2"], ["inspect", "n" * 10**5],
        ["inspect", "digits_irb", "--batch", "9" * 400],
        ["inspect", "digits_irb", "--resolution", "9" * 5000], ["plan", "digits_irb", "--budget", "9" * 400],
        ["inspect", "digits_irb", "--plot", "n" * 300 + ".png"], ["inspect", "digits_irb", "--plot", "\0.png"],
        ["inspect", "irb", "--attr", f"kernel={'9' * 400}"], ["compare", "--seeds", "9" * 400],
        ["oracle", "check", "n" * 300, "n"], ["oracle", "export", "n" * 300, "relu-exact"],
    ],
    ids=lambda words: ascii(" ".join(words))[:40],
)  # fmt: skip
def test_strange_words_take_one_line_too(words: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newlines, escape sequences, bytes that are no text, numbers and names beyond all measure."""
    monkeypatch.setattr("minitl.verbs.oracle_cases.SLOW", 3600.0)  # kernels may take longer than what is told of
    got = cli(*words)
    assert (got.code, got.out, got.err.count("\n")) == (2, "", 1)
    assert got.err.rstrip("\n").isprintable()
    assert len(got.err) < 3000


def test_measured_bytes_other_than_predicted_are_exit_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from minitl.verbs import inspect

    found: list[Measured] = []
    measure = inspect.measure
    monkeypatch.setattr(inspect, "measure", lambda *a, **k: found.append(measure(*a, **k)) or found[0])
    assert cli(*DIGITS, "--measure").code == 0
    for change in ({"traced_bytes": 1}, {"held_bytes": 1}, {"traced_bytes": 1, "held_bytes": 1}):
        monkeypatch.setattr(inspect, "measure", lambda *a, _c=change, **k: replace(found[0], **_c))
        got = cli(*DIGITS, "--measure", "--json")
        assert (got.code, got.err) == (1, "")
        assert json.loads(got.out)["measured"].items() >= change.items()


@pytest.mark.parametrize(
    ("text", "of", "budget"),
    [
        ("16MiB", "total", 16 * 2**20), ("40MB", "kept", 40_000_000), ("40 MB", "peak", 40_000_000),
        ("500000", "total", 500_000), (" 7 B ", "total", 7), ("3bytes", "total", 3), ("1.5kB", "total", 1500),
        (".5GiB", "total", 2**29), ("1.001MB", "total", 1_001_000), ("3e6", "total", 3_000_000), ("1Ki", "kept", 1024),
        ("9007199254740993", "total", 2**53 + 1), ("0.0029MB", "total", 2900), ("1.9B", "total", 1),
        ("1000", "peak", 1000),
        ("2GFLOPs", "flops", 2 * 10**9), ("2GFLOP", "flops", 2 * 10**9), ("500M", "flops", 500 * 10**6),
        ("1T", "flops", 10**12), ("123456", "flops", 123_456), ("1e18", "flops", 10**18),
    ],
)  # fmt: skip
def test_budgets(text: str, of: str, budget: int) -> None:
    got, what = parse_budget(text, of)
    assert (got, type(got), what) == (budget, int, of)


@pytest.mark.parametrize(
    ("text", "budget", "of"),
    [
        ("64KB", 64_000, "peak"), ("40mb", 40_000_000, "peak"), ("16mib", 2**24, "peak"),
        ("1,000,000", 10**6, "peak"), ("12,345.5 kB", 12_345_500, "peak"),
        ("2GFLOPs", 2 * 10**9, "flops"), ("1.5 gflop", 15 * 10**8, "flops"),
        ("700FLOPs", 700, "flops"), ("3M", 3_000_000, "peak"), ("1TiB", 2**40, "peak"), ("5 Bytes", 5, "peak"),
    ],
)  # fmt: skip
def test_budgets_as_people_write_them(text: str, budget: int, of: str) -> None:
    assert parse_budget(text) == (budget, of)


@pytest.mark.parametrize("of", ["peak", "flops"])
@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "-1", "+1", "0.9", "16 Mi B", "MB", "1e999", "1e19", "nan", "inf", "1,0", "10,00", "1000,000",
     "1,000,", "0x10", "1_0", "1 2", "1.", "1.2.3", "1e-3MB", "16PB", "16MiBps", "\u0661"],
)  # fmt: skip
def test_budgets_that_are_none(text: str, of: str) -> None:
    with pytest.raises(ValueRangeError, match="budget: cannot read"):
        parse_budget(text, of)


# JSON

ABOUT = {"network", "method", "blocks", "batch", "resolution", "classes", "dtype", "rows", "totals"}
OPTIONS = {"optimizer", "int8", "checkpoint", "rules", "apply", "images", "threads"}
MORE_ABOUT = {"idle_rules", "padding", "op_by_op", *OPTIONS}
ROW = {"layer", "op", "role", "rule", "tensor", "needed_for", "shape", "dtype", "bits", "bytes", "shared_with"}
BYTES = {
    "kept_bytes", "trained_parameter_bytes", "frozen_parameter_bytes", "buffer_bytes", "state_bytes", "gradient_bytes",
    "optimizer_bytes", "total_bytes", "peak_bytes",
}  # fmt: skip
MEASURED = {"held_bytes", "traced_bytes", "predicted_peak_bytes", "traced_peak_bytes"}
WAY = {"method", "blocks", "kept_bytes", "total_bytes", "peak_bytes", "flops", "trained_parameters"}


def test_inspect(cli: Cli) -> None:
    data = read(cli(*DIGITS, "--json", "--measure", "--optimizer", "adam"), "inspect")
    assert data.keys() == ABOUT | MORE_ABOUT | {"measured"}
    about = ("digits_irb", "mobiletl", 5, 2, 24, 10, "float32")
    assert (
        tuple(data[key] for key in ("network", "method", "blocks", "batch", "resolution", "classes", "dtype")) == about
    )
    assert all(row.keys() == ROW for row in data["rows"])
    totals = data["totals"]
    assert totals.keys() == BYTES | {"macs", "flops"}
    assert all(type(totals[name]) is int and totals[name] > 0 for name in BYTES - {"state_bytes"})
    assert totals["state_bytes"] == 0  # no rule of this method carries anything from step to step
    assert totals["kept_bytes"] == sum(row["bytes"] for row in data["rows"])
    assert totals["optimizer_bytes"] == 2 * totals["trained_parameter_bytes"]
    for work in ("macs", "flops"):
        assert {"forward", "grad_input", "grad_weight", "convention"} <= totals[work].keys()
    assert data["measured"].keys() == MEASURED
    assert data["measured"]["held_bytes"] == data["measured"]["traced_bytes"] == totals["kept_bytes"]
    assert data["measured"]["predicted_peak_bytes"] == totals["peak_bytes"]


@pytest.mark.parametrize(
    ("line", "resolution", "blocks", "classes"),
    [
        ("digits_irb --method ft-all", 24, None, 10), ("irb", 7, 1, None), ("irb --attr expand=false", 7, 1, None),
        ("mobilenet_v3_small --classes 7", 224, 5, 7), ("digits_irb --blocks 2 --resolution 9", 9, 2, 10),
        ("mobilenet_v2 --method ft-last --resolution 32", 32, None, 1000),
    ],
)  # fmt: skip
def test_inspect_s_defaults(line: str, resolution: int, blocks: int | None, classes: int | None, cli: Cli) -> None:
    words = [*line.split(), "--json"]
    if "expand=false" in words:
        words += ["--attr", "expanded_channels=96"]
    data = read(cli("inspect", *words), "inspect")
    assert (data["resolution"], data["blocks"], data["classes"], data["batch"]) == (resolution, blocks, classes, 8)


def test_inspect_s_options_reach_the_ledger(cli: Cli) -> None:
    plain = read(cli(*DIGITS, "--json"), "inspect")
    options = ("--int8", "--checkpoint", "--rule", "hard_swish=few2", "--by", "block", "--against", "ft-blocks")
    data = read(cli(*DIGITS, "--json", *options), "inspect")
    assert (data["int8"], data["checkpoint"], data["rules"]) == (True, True, ["hard_swish=few2"])
    assert data["totals"]["frozen_parameter_bytes"] < plain["totals"]["frozen_parameter_bytes"]
    assert [row["op"] for row in data["rows"]].count("checkpoint") == 5
    assert [(row["rule"], row["bits"]) for row in data["rows"] if row["op"] == "hard_swish"] == [("few2", 2)]
    assert sum(data["by_block"].values()) == data["totals"]["kept_bytes"]
    assert data["against"].keys() == {"method", "rows", "totals"}
    assert data["against"]["method"] == "ft-blocks"
    assert all(row.keys() == ROW for row in data["against"]["rows"])


def test_a_rule_may_be_for_one_role(cli: Cli) -> None:
    data = read(cli(*DIGITS, "--json", "--method", "ft-blocks", "--rule", "expand_act=output"), "inspect")
    rules = {(row["role"], row["rule"]) for row in data["rows"] if row["op"] == "hard_swish"}
    assert rules == {("expand_act", "output"), ("depthwise_act", "exact"), ("head_act", "exact")}


@pytest.mark.parametrize("rule", ["hard_swish=few2", "expand_act=output", "project=filter2", "expand=quantised8"])
def test_a_rule_that_no_layer_uses_is_told(rule: str, cli: Cli) -> None:
    told = {}
    for method in ("ft-last", "ft-blocks", "ft-blocks --checkpoint"):
        line = ("inspect", "digits_irb", "--method", *method.split(), "--by", "network", "--rule", rule)
        told[method] = read(cli(*line, "--json"), "inspect")["idle_rules"]
        assert ("without effect" in cli(*line).out) == bool(told[method])
    assert told == {"ft-last": [rule], "ft-blocks": [], "ft-blocks --checkpoint": []}


@pytest.mark.parametrize("of", ["kept", "total", "peak", "flops"])
def test_plan(of: str, cli: Cli) -> None:
    data = read(cli("plan", "digits_irb", "--batch", 2, "--budget", "50M", "--of", of, "--json"), "plan")
    about = {"network", "batch", "resolution", *OPTIONS}
    assert data.keys() == about | {"budget_bytes", "of", "best", "pareto", "binding", "next", "best_by", "peak"}
    assert (data["network"], data["batch"], data["resolution"], data["optimizer"]) == ("digits_irb", 2, 24, "sgd")
    assert sum(data["peak"]["bytes"].values()) == data["best"]["peak_bytes"]
    assert (data["budget_bytes"], data["of"]) == (50_000_000, of)
    assert all(way.keys() == WAY for way in (data["best"], *data["pareto"]))
    quantity = "flops" if of == "flops" else f"{of}_bytes"
    assert data["best"][quantity] <= 50_000_000
    assert data["best"] in data["pareto"]
    binding = data["binding"]
    assert (binding["of"], binding["used"]) == (of, data["best"][quantity])
    assert binding["used"] + binding["left"] == binding["budget"] == 50_000_000
    if of == "flops":
        assert data["next"].keys() == WAY
        assert data["next"][quantity] == binding["budget"] + binding["short_of_next"] > 50_000_000
    else:
        assert (data["next"], binding["short_of_next"], data["best"]["method"]) == (None, None, "ft-all")


def test_images_in_pixels(cli: Cli) -> None:
    """Four times less of the images is held, and the stem keeps a quarter; plan tells how to train so."""
    step = ("digits_irb", "--batch", 4, "--resolution", 48)
    pixels, numbers = (
        read(cli("inspect", *step, "--method", "ft-all", "--images", images, "--measure", "--json"), "inspect")
        for images in ("uint8", "float")
    )
    (kept,) = (row for row in pixels["rows"] if row["role"] == "stem")
    assert (kept["dtype"], kept["bits"], kept["bytes"]) == ("uint8", 8, 4 * 48 * 48 * 3)
    less = numbers["totals"]["kept_bytes"] - pixels["totals"]["kept_bytes"]
    assert less == 3 * kept["bytes"]
    assert pixels["measured"]["traced_peak_bytes"] < numbers["measured"]["traced_peak_bytes"] - 2 * less // 3
    planned = ("plan", *step, "--budget", "9MB", "--images", "uint8")
    assert read(cli(*planned, "--json"), "plan")["images"] == "uint8"
    assert "--images uint8" in cli(*planned).out
    assert "a single block takes none" in cli("inspect", "irb", "--images", "uint8").err


def test_plan_finds_the_largest_batch_and_resolution(cli: Cli) -> None:
    for what in ("batch", "resolution"):
        front = read(cli("plan", "digits_irb", "--budget", "2MB", "--largest", what, "--json"), "plan")["pareto"]
        for way in front[:1]:
            found = way[f"largest_{what}"]
            chosen = ("--method", way["method"], *(("--blocks", way["blocks"]) if way["blocks"] else ()))
            peaks = [
                read(cli("inspect", "digits_irb", *chosen, f"--{what}", n, "--json"), "inspect")["totals"]["peak_bytes"]
                for n in (found, found + 1)
            ]
            assert peaks[0] <= 2_000_000 < peaks[1]


def test_what_plan_says_inspect_says(cli: Cli) -> None:
    options = ("--batch", 2, "--optimizer", "adam", "--int8", "--rule", "relu=output", "--json")
    best = read(cli("plan", "digits_irb", "--budget", "3MB", *options), "plan")["best"]
    chosen = ("--method", best["method"], "--blocks", best["blocks"])
    totals = read(cli("inspect", "digits_irb", *chosen, *options), "inspect")["totals"]
    assert {name: totals[name] for name in ("kept_bytes", "total_bytes", "peak_bytes")} == {
        name: best[name] for name in ("kept_bytes", "total_bytes", "peak_bytes")
    }
    work = [count for name, count in totals["flops"].items() if name != "convention"]
    assert sum(work) == best["flops"]
    assert 4 * best["trained_parameters"] == totals["trained_parameter_bytes"]


def test_plan_counts_what_it_tries(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Bar] = []
    monkeypatch.setattr(Bar, "step", lambda shown: steps.append(shown))
    cli("plan", "irb", "--budget", "8MB")
    alone = [name for name, method in METHODS.items() if not method.sides]  # a block has no place for sides
    assert [shown.jobs for shown in steps] == [len(alone)] * len(alone)


def test_a_single_block_can_be_planned(cli: Cli) -> None:
    data = read(cli("plan", "irb", "--attr", "kernel=3", "--budget", "9MB", "--json"), "plan")
    assert data["best"]["method"].startswith("mobiletl")


@pytest.mark.parametrize("item", ["table1", "figure1", "finetuning", "results", "tinytl", "all", None])
def test_reproduce(item: str | None, cli: Cli) -> None:
    data = read(cli("reproduce", *([item] if item else []), "--json"), "reproduce")
    assert data.keys() == {"results"}
    required = {"item", "quantity", "unit", "published", "computed", "difference", "convention"}
    assert all(row.keys() == required | {"verdict", "kind", "note"} for row in data["results"])
    items = [row["item"] for row in data["results"]]
    everything = list(ITEMS)
    assert list(dict.fromkeys(items)) == (everything if item in ("all", None) else [item])
    for row in data["results"]:
        assert row["difference"] == row["computed"] - row["published"]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` on a task of seconds."""
    task = partial(Task, source=(0, 1), target=(2, 3), size=8, source_epochs=1, images=12, epochs=1, batch=6)
    monkeypatch.setattr("minitl.verbs.compare.Task", task)


@pytest.mark.usefixtures("short")
def test_compare(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "plots"
    got = cli("compare", "--methods", "ft-last,mobiletl:2+int8", "--seeds", 1, "--plots", folder, "--json")
    progress = got.err.splitlines()
    assert progress[0].startswith("seeds: 1, each pretrained once, adapted with 2 methods")
    assert [line[:14] for line in progress[1:]] == ["[1/3] seed 0: ", "[2/3] seed 0: ", "[3/3] seed 0: "]
    data = read(got._replace(err=""), "compare")
    assert data.keys() == {"results", "plots"}
    promised = WAY | {"seeds", "accuracy", "seconds", "learning_rates"}
    assert all(row.keys() == promised | {"options"} for row in data["results"])
    named = [(row["method"], row["blocks"], row["options"], row["seeds"]) for row in data["results"]]
    assert named == [("ft-last", None, [], 1), ("mobiletl", 2, ["int8"], 1)]
    assert all(len(row["accuracy"]) == 1 and 0 <= row["accuracy"][0] <= 1 for row in data["results"])
    assert data["plots"] == [str(folder / "accuracy.png"), str(folder / "memory.png")]
    assert sorted(path.name for path in folder.iterdir()) == ["accuracy.png", "memory.png"]


def test_compare_finds_out_first_what_would_keep_its_plots_from_being_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitl.verbs.compare.comparing", lambda *a, **k: pytest.fail("worked in vain"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    got = cli("compare", "--plots", tmp_path / "plots")
    assert (got.code, got.out) == (2, "")
    assert got.err == "minitl compare: plots need matplotlib; pip install 'minitl[demo]'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("form", ["--json", "--workers=1"])
def test_a_plot_that_cannot_be_written_in_the_end_takes_no_result_away(
    form: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def full(figure: Any, path: Path, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    got = cli("compare", "--methods", "ft-last", "--seeds", 1, "--workers", 1, "--plots", tmp_path, form)
    assert got.code == 2
    assert got.err.splitlines()[-1].endswith("accuracy.png: cannot write: No space left on device")
    if form == "--json":
        data = json.loads(got.out)
        assert ([row["method"] for row in data["results"]], data["plots"]) == (["ft-last"], [])
    else:
        assert "\nft-last " in got.out
    assert not list(tmp_path.iterdir())


def test_ctrl_c_prints_what_is_known(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        yield [Result("ft-last", None, (), 2, [0.5, 0.75], 1, 2, 3, 4, 5, 6.0, [0.1, 0.2])]
        raise KeyboardInterrupt

    monkeypatch.setattr("minitl.verbs.compare.comparing", interrupted)
    got = cli("compare")
    assert (got.code, got.err) == (130, "minitl compare: interrupted\n")
    assert got.out.splitlines()[2].split()[:2] == ["ft-last", "62.5"]
    assert "seeds: 2;" in got.out


# Text


@pytest.mark.parametrize("options", [(), ("--by", "block"), ("--against", "ft-blocks"), ("--measure",)])
def test_inspect_prints_the_ledger(options: tuple[str, ...], cli: Cli) -> None:
    totals = read(cli(*DIGITS, "--json"), "inspect")["totals"]
    got = cli(*DIGITS, *options)
    assert (got.code, got.err) == (0, "")
    assert "\x1b" not in got.out
    for name in BYTES:
        assert f"{totals[name]:,}" in got.out


def test_inspect_as_csv(cli: Cli) -> None:
    rows = read(cli(*DIGITS, "--json"), "inspect")["rows"]
    got = list(csv.DictReader(io.StringIO(cli(*DIGITS, "--csv").out)))
    assert [(row["layer"], row["tensor"], int(row["bytes"])) for row in got] == [
        (row["layer"], row["tensor"], row["bytes"]) for row in rows
    ]


def test_plan_prints_the_front_and_what_binds(cli: Cli) -> None:
    data = read(cli("plan", "digits_irb", "--budget", "4MB", "--json"), "plan")
    got = cli("plan", "digits_irb", "--budget", "4MB")
    best, following = (f"{data[name]['method']} {data[name]['blocks']}" for name in ("best", "next"))
    assert f"best: {best}, {data['best']['peak_bytes']:,} bytes" in got.out
    other = data["best_by"]["kept"]
    assert f"by kept alone: {other['method']}" in got.out
    assert other["peak_bytes"] > 4_000_000 >= other["kept_bytes"]
    assert f"binding: peak; the next step up is {following}, {data['binding']['short_of_next']:,} bytes" in got.out
    table = got.out.split("MFLOPs")[1].split("best: ")[0]
    assert sum(way["method"] in line for way in data["pareto"][:1] for line in table.splitlines()) == 1
    assert len([line for line in table.splitlines()[2:] if line]) == len(data["pareto"])
    assert "there is no better method at any budget" in cli("plan", "digits_irb", "--budget", "1GB").out


def test_reproduce_counts_what_comes_out(cli: Cli) -> None:
    got = cli("reproduce")
    assert got.code == 0, "figures that differ are a finding, not a failure"
    assert "published: 91 of 101 come out, 78 to the printed digit and 13 within the error of reading" in got.out
    assert "re-derived: 51 of 51 come out" in got.out
    assert "candidate: 21 of 21 come out" in got.out


@pytest.mark.usefixtures("short")
def test_compare_prints_a_table_and_what_it_is_no_evidence_of(cli: Cli) -> None:
    got = cli("compare", "--methods", "ft-last", "--seeds", 1, "--workers", 1)
    assert got.code == 0
    header, _, row, *_ = got.out.splitlines()
    assert header.split()[:2] == ["method", "accuracy"]
    assert row.split()[0] == "ft-last"
    assert "it is no evidence about CIFAR or ImageNet" in " ".join(got.out.split())


@pytest.mark.parametrize(
    "line",
    [
        "inspect digits_irb --by block --against ft-all", "plan digits_irb --budget 4GFLOPs --of flops",
        "plan irb --budget 9MB --checkpoint", "reproduce figure1",
    ],
)  # fmt: skip
def test_plots(line: str, cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    got = cli(*line.split(), "--plot", path)
    assert (got.code, got.err) == (0, "")
    assert got.out.endswith(f"\nwrote {path}\n")
    assert [file.name for file in tmp_path.iterdir()] == ["plot.svg"]
    assert path.read_text().startswith("<?xml")
    assert "wrote" not in cli(*line.split(), "--plot", path, "--json").out


def test_alone_it_prints_help(cli: Cli) -> None:
    assert cli() == cli("--help")


ACTIONS = ("oracle list", "oracle export", "oracle check", "oracle spec")


@pytest.mark.parametrize("verb", ["", *VERBS, *ACTIONS])
def test_help(verb: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    got = cli(*verb.split(), "--help")
    assert (got.code, got.err) == (0, "")
    assert max(map(len, got.out.splitlines())) <= 80
    assert got.out.startswith(f"usage: minitl {verb}".rstrip())
    for word in () if verb == "oracle" else ("--json",) if verb else VERBS:  # the oracle has actions of its own
        assert word in got.out
    assert got.out.split("\n\n")[1][0].isupper()  # what it is for, below how it is called
    assert re.search(r"\nexamples:\n(  # .*\n)?  minitl ", got.out)
    assert not re.search(r" \n", got.out)


EXAMPLES = [line for verb in VERBS.values() for line in verb.EXAMPLES.strip().splitlines()]


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_are_what_can_be_typed(line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    assert name == "minitl"
    assert parser().parse_args(words).verb == words[0]


def test_defaults_are_shown(cli: Cli) -> None:
    text = " ".join(cli("inspect", "--help").out.split())
    for told in (
        "images in a batch (default: 8)",
        "(default: sgd)",
        "(default: mobiletl)",
        "bar is of (default: layer)",
    ):
        assert told in text
    assert "(default: False)" not in text
    assert "(default: [])" not in text


# As a process


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [*MINITL, *arguments], env=buffered, text=True, timeout=120, check=False, stderr=subprocess.PIPE, **options
    )


def test_it_runs_as_a_module() -> None:
    got = process("plan", "digits_irb", "--budget", "4MB", "--json", stdout=subprocess.PIPE)
    assert (got.returncode, got.stderr) == (0, "")
    assert json.loads(got.stdout)["schema"] == "minitl-plan/1"
    bad = process("inspect", "resnet", stdout=subprocess.PIPE)
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)
    version = process("--version", stdout=subprocess.PIPE)
    assert version.stdout == f"minitl {minitl.__version__}\n"


@pytest.mark.parametrize("line", ["inspect digits_irb", "inspect digits_irb --csv", "reproduce --json", "--help"])
def test_a_reader_that_has_gone_is_no_error(line: str) -> None:
    """Standard output is a pipe that nobody reads any more, as after `| head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    got = process(*line.split(), stdout=writing)
    os.close(writing)
    assert (got.returncode, got.stderr) == (0, "")


def test_a_full_disk_under_stdout_is_one_line() -> None:
    for line in ("inspect digits_irb", "plan digits_irb --budget 1GB --json", "--help"):
        with open("/dev/full", "w") as full:
            got = process(*line.split(), stdout=full)
        assert (got.returncode, got.stderr.count("\n")) == (2, 1)
        assert got.stderr.endswith(": No space left on device\n")


def test_a_closed_stdout_is_one_line() -> None:
    got = subprocess.run(
        ["sh", "-c", f"exec {' '.join(MINITL)} inspect digits_irb >&-"], text=True, stderr=subprocess.PIPE, check=False
    )
    assert (got.returncode, got.stderr) == (2, "minitl inspect: standard output is closed\n")


def test_a_terminal_without_utf8_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "0")
    for line in ("oracle spec", "reproduce", "inspect irb --by block"):
        got = process(*line.split(), stdout=subprocess.PIPE)
        assert (got.returncode, got.stderr) == (0, "")
        assert got.stdout.isascii()


def test_ctrl_c_exits_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("minitl.verbs.inspect.predict", interrupted)
    assert cli(*DIGITS) == (130, "", "minitl inspect: interrupted\n")


def test_sigterm_exits_143(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGALRM
    before = [*map(signal.getsignal, numbers)]
    monkeypatch.setattr("minitl.verbs.inspect.predict", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert cli(*DIGITS) == (143, "", "minitl inspect: terminated\n")
    assert [*map(signal.getsignal, numbers)] == before
    assert signal.alarm(0) == 0


def test_two_signals_at_once_end_a_command_as_one_does(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would write a traceback of its own for one that it finds ignored, because of the other."""
    written: list[object] = []

    def predict(*_: Any, **__: Any) -> None:
        with deaf():  # until both are there
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.pthread_kill(threading.get_ident(), number)

    monkeypatch.setattr("minitl.verbs.inspect.predict", predict)
    monkeypatch.setattr(sys, "unraisablehook", written.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        assert cli(*DIGITS) == (130, "", "minitl inspect: interrupted\n")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not written


STUCK = """
import sys, time
from minitl import cli
from minitl.verbs import endings, inspect

def predict(*_, **__):
    try:
        print("working", flush=True)
        while True:
            time.sleep(0.01)  # a signal that comes just before a nap is heard after it
    finally:
        time.sleep(60)

endings.GRACE, inspect.predict = 1, predict
sys.exit(cli.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_what_is_stuck_as_it_ends_is_ended(number: signal.Signals) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", STUCK, *DIGITS], stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "working\n"
    for _ in range(2):
        running.send_signal(number)
    running.communicate(timeout=30)
    assert running.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]


def hear_ctrl_c() -> None:
    """Whatever started the tests may have had them ignore it (as a shell does with what it runs in the background)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


SLOW_DISK = """
import sys, time
from pathlib import Path
from matplotlib.figure import Figure
from minitl.cli import main

def savefig(figure, path, **options):
    Path(path).write_bytes(b"half of it")
    print("writing", flush=True)
    while True:
        time.sleep(0.01)  # as above

Figure.savefig = savefig
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_while_a_plot_is_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    path.write_bytes(b"the old one")
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_DISK, *DIGITS, "--plot", path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert running.stdout is not None
    assert "writing\n" in iter(running.stdout.readline, "")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "minitl inspect: interrupted\n")
    assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]
    assert path.read_bytes() == b"the old one"


LONG_COMPARISON = """
import sys
from functools import partial
from minitl import cli
from minitl.training.adapt import Task
from minitl.verbs import compare

compare.Task = partial(Task, source=(0, 1), target=(2, 3), size=8, source_epochs=1, images=12, epochs=1, batch=6)
sys.exit(cli.main())
"""


def test_ctrl_c_during_compare_says_how_to_go_on(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    left, advance = [2], Bar.advance

    def interrupting(shown: Bar, text: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        advance(shown, text)

    tiny = partial(Task, source=(0, 1), target=(2, 3), size=8, source_epochs=1, images=12, epochs=1, batch=6)
    monkeypatch.setattr("minitl.verbs.compare.Task", tiny)
    monkeypatch.setattr(Bar, "advance", interrupting)
    words = ("compare", "--seeds", 3, "--workers", 1, "--methods", "ft-last", "--out", tmp_path / "t.json", "--resume")
    assert cli(*words).err.splitlines()[-1] == "minitl compare: interrupted: nothing was written yet"
    left[0] = 5
    told = f"2 trials are in {tmp_path / 't.json'}: the same command with --resume goes on"
    got = cli(*words)
    assert (got.code, got.err.splitlines()[-1]) == (130, f"minitl compare: interrupted: {told}")
    left[0] = 9
    assert cli(*words).code == 0


def test_ctrl_c_during_compare_ends_its_workers_too() -> None:
    """The signal goes to the whole group, as from a terminal; standard error ends when the last worker does."""
    running = subprocess.Popen(
        [sys.executable, "-c", LONG_COMPARISON, "compare", "--seeds", "999", "--workers", "1", "--methods", "ft-last"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    try:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("seeds: 999")
        assert running.stderr.readline().startswith("[1/1998] seed 0: pretrained")
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert (running.returncode, out) == (130, "")
    assert [line for line in err.splitlines() if not line.startswith("[")] == ["minitl compare: interrupted"]
