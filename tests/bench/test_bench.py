"""What `minitl bench` measures and prints; how long anything takes is no matter here."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pytest

from minitl.accounting import predict
from minitl.arrays import size
from minitl.bench import busy, rivals
from minitl.bench.cases import BLOCKS, NETWORKS, OTHERS, Case, Tuning, select
from minitl.bench.compare import Comparison, Key, Result, _told, geometric_means
from minitl.bench.gemm import WEIGHTS, multiply_adds, products
from minitl.bench.peak import growth, peak_bytes
from minitl.bench.timing import burst_of, interleave
from minitl.cli import main
from minitl.errors import UnknownNameError

T = TypeVar("T")
SMALLEST = BLOCKS[3].name  # 7x7
CONTRACT = ("case", "method", "ours_ms", "torch_ms", "ratio", "ours_peak_bytes", "torch_peak_bytes", "gemm_ms")


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", "--cases", SMALLEST, "--seconds", "0.001", "--no-peak", "--json", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    data: dict[str, Any] = json.loads(out)
    assert data["schema"] == "minitl-bench/1"
    assert data["machine"]["threads"] == 2
    assert min(data["machine"]["roof_gflops"].values()) > 0
    return data


def test_json_has_what_is_promised(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitl.bench.compare.WAITS", {"sleeping": "passive"})  # quick also beside other tests
    data = bench(capsys)
    rows = data["results"]
    assert [(row["case"], row["method"]) for row in rows] == [(SMALLEST, "ft"), (SMALLEST, "mobiletl")]
    for row in rows:
        assert row.keys() >= set(CONTRACT)
        assert min(row["ours_ms"], row["gemm_ms"]) > 0
        assert (row["ours_peak_bytes"], row["torch_peak_bytes"]) == (None, None)
        if rivals.installed():
            assert row["torch_ms"] == row["torch_all_ms"][row["torch_variant"]]
            assert row["ratio"] == row["ours_ms"] / row["torch_ms"]
            assert data["geometric_means"][row["method"]] == pytest.approx(row["ratio"])
    if rivals.installed():
        ft, mobiletl = rows
        assert set(ft["torch_all_ms"]) < set(mobiletl["torch_all_ms"])


def test_without_torch_its_columns_are_empty_and_one_line_says_how_to_fill_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "installed", lambda: False)
    assert main(["bench", "--cases", SMALLEST, "--seconds", "0.001", "--no-peak", "--json"]) == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert err.count("pip install torch==") == 1
    for row in data["results"]:
        assert (row["torch_ms"], row["ratio"], row["torch_peak_bytes"], row["torch_all_ms"]) == (None, None, None, {})
        assert row["ours_ms"] > 0
    assert data["geometric_means"] == {}
    assert main(["bench", "--cases", SMALLEST, "--seconds", "0.001", "--no-peak"]) == 0
    assert f"{SMALLEST}  ft" in capsys.readouterr().out


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_ctrl_c_prints_the_cases_that_are_finished(
    form: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = Comparison.time

    def interrupting(comparison: Comparison, seconds: float) -> None:
        if comparison.case == BLOCKS[4]:
            raise KeyboardInterrupt
        timing(comparison, seconds)

    monkeypatch.setattr(rivals, "installed", lambda: False)
    monkeypatch.setattr(Comparison, "time", interrupting)
    for cases, finished in (("*7x7*", True), (BLOCKS[4].name, False)):
        assert main(["bench", "--cases", cases, "--seconds", "0.001", "--no-peak", *form]) == 130
        out, err = capsys.readouterr()
        assert err.endswith("minitl bench: interrupted\n")
        if not finished:
            assert out == ""
        elif form:
            assert {row["case"] for row in json.loads(out)["results"]} == {SMALLEST}
        else:
            assert f"{SMALLEST}  ft" in out
            assert BLOCKS[4].name not in out


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("what", ["scale", "compile"])
def test_ctrl_c_prints_what_else_is_finished(
    what: str, form: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks, firsts = iter([1_000_000, 2_000_000]), iter([(5.25, 0.25), (0.5, 0.25), (4.25, 0.25), (0.5, 0.25)])

    def next_of(values: Iterator[T]) -> T:
        for value in values:
            return value
        raise KeyboardInterrupt

    monkeypatch.setattr("minitl.bench.scale.interleave", lambda bursts, seconds: {case: [0.125] for case in bursts})
    monkeypatch.setattr("minitl.bench.scale.peak_bytes", lambda *_: next_of(peaks))
    monkeypatch.setattr("minitl.bench.cold._first_two", lambda *_: next_of(firsts))
    assert main(["bench", f"--{what}", "--seconds", "0", *form]) == 130
    out, err = capsys.readouterr()
    assert err.endswith("minitl bench: interrupted\n")
    if form:
        assert len(json.loads(out)[what]) == 2
    else:
        assert len(re.findall(r" 125\.0 .* [12]\.0 | [54]\.00 ", out)) == 2


@pytest.mark.parametrize("what", ["scale", "compile"])
def test_ctrl_c_prints_nothing_where_nothing_is_finished(
    what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minitl.bench.scale.interleave", interrupt)
    monkeypatch.setattr("minitl.bench.cold._first_two", interrupt)
    assert main(["bench", f"--{what}", "--seconds", "0"]) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("", "minitl bench: interrupted\n")


def endless(*_: object) -> None:
    time.sleep(120)


def test_ctrl_c_waits_for_no_process_that_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    main_thread = threading.get_ident()

    def interrupt() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.05)
        signal.pthread_kill(main_thread, signal.SIGINT)

    monkeypatch.setattr("minitl.bench.peak._measure", endless)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    thread = threading.Thread(target=interrupt)
    thread.start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            peak_bytes(BLOCKS[3], Tuning("mobiletl"), None, 1)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()


def test_a_line_a_case_tells_the_ratio_where_there_is_one() -> None:
    with_torch = Result("case", "ft", 1.5, 3, 0.5, None, 1, None, None, 1, 1, 0, 0, None, None, None, None, {})
    assert _told(with_torch) == "ft 1.5 ms (torch 3.0, ratio 0.50)"
    assert _told(replace(with_torch, torch_ms=None, ratio=None)) == "ft 1.5 ms"


def test_torch_is_not_imported_before_it_is_needed() -> None:
    program = "import sys, minitl.cli, minitl.bench.compare; minitl.cli.parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--cases resnet", "unknown case 'resnet'; choose one of: irb, networks, all, irb 24-144-24"),
        ("--seconds -1", "expected --seconds of at least 0, got -1"),
        ("--seconds nan", "expected --seconds of at least 0, got nan"),
        ("--threads 0", "expected a count from 1 to 1024, got 0"),
        ("--scale --compile", "not allowed with argument"),
    ],
)
def test_bad_input_is_one_line(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: Any = main(["bench", *options.split(" ")])
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_cases_are_chosen_by_group_or_pattern() -> None:
    assert select("irb") == BLOCKS
    assert select("networks") == NETWORKS
    assert select("all") == BLOCKS + NETWORKS + OTHERS
    assert select("*7x7*") == BLOCKS[3:]
    with pytest.raises(UnknownNameError):
        select("")


def test_steps_run_by_turns_and_equally_often() -> None:
    order: list[str] = []
    times = interleave({name: burst_of(partial(order.append, name)) for name in "ab"}, 0)
    runs = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert runs == ["a", "b", "a", "b"]  # to warm up, and one round
    assert all(times.values())


@pytest.mark.parametrize("case", BLOCKS + NETWORKS, ids=lambda case: case.name)
def test_products_are_all_the_multiply_adds_of_their_ops(case: Case) -> None:
    for tuning in case.tunings:
        macs = sum(size(product.x) * product.outputs for product in products(case, tuning))
        total = predict(case.model(tuning), batch=case.batch, resolution=case.resolution).totals.macs.total
        assert 0 < macs < total == multiply_adds(case, tuning)
        if case.network == "irb":  # all the rest is the depthwise convolution's y, gx and gW
            attrs = case.attrs
            assert (
                total - macs == 3 * case.batch * case.resolution**2 * attrs["expanded_channels"] * attrs["kernel"] ** 2
            )
    assert "conv" not in WEIGHTS


def test_growth_is_that_of_the_step() -> None:
    size = 50_000_000
    grown = growth(lambda: np.ones(size, np.uint8).sum())
    if grown is None:
        pytest.skip("the system does not tell")
    assert 0.98 * size <= grown < 1.1 * size  # the system counts pages a few dozen at a time


def test_peak_of_a_step_in_a_process_of_its_own() -> None:
    case = replace(BLOCKS[3], resolution=14)
    grown = peak_bytes(case, Tuning("mobiletl"), None, 2)
    if grown is None:
        pytest.skip("the system does not tell")
    assert predict(case.model(Tuning("mobiletl")), batch=8, resolution=14).kept_bytes < grown < 100e6


def test_the_fastest_is_chosen_of_those_timed_together_for_any_method() -> None:
    """A slow one is left out after its first round; MobileTL's rivals are the usual ones as well."""
    comparison = Comparison(BLOCKS[3], 2)
    ft, mobiletl = BLOCKS[3].tunings
    usual, other, slow = (Key(ft, "modules", wait) for wait in ("sleeping", "spinning", "dozing"))
    own = Key(mobiletl, "folded", "spinning")
    comparison.times = {usual: [5.0], other: [5.5], slow: [9.0], own: [6.0], Key(ft, "minitl"): [1.0]}
    comparison.finalists = comparison._finalists()
    assert comparison.finalists == [usual, other, own]
    comparison.times |= {usual: [8.0, 8.0, 8.0], other: [7.0, 7.0, 1.0], slow: [0.1], own: [9.0]}
    assert comparison._fastest(ft) == comparison._fastest(mobiletl) == other


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["cpu 100 0 100 700 100 0 0 0 0 0\n", "cpu 130 0 110 850 110 0 0 0 0 0\n"])
    monkeypatch.setattr(busy, "_read", lambda: next(lines))
    monkeypatch.setattr(busy, "WATCHED", 0.0)
    assert busy.others() == pytest.approx(0.2)
    assert busy.warning([]) == busy.warning([0.01]) == ""
    assert "up to 20 % of the cores" in busy.warning([0.01, 0.2])


def test_geometric_mean() -> None:
    def result(method: str, ratio: float | None) -> Result:
        return Result("case", method, 1, 1, ratio, None, 1, None, None, 1, 1, 0, 0, None, None, None, None, {})

    means = geometric_means([result("a", 0.5), result("a", 2), result("b", 3), result("b", None)])
    assert means == pytest.approx({"a": 1, "b": 3})
