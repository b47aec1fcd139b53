"""The ledger as a table, as JSON and as CSV: nothing is lost on the way."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from models import trained

import minitl
from minitl.accounting import Ledger, Row, Totals, predict
from minitl.accounting.conventions import CONVENTIONS
from minitl.accounting.report import against_table, block_of, block_table, by_layer, sums
from minitl.errors import UnknownNameError
from minitl.kernels import threads
from minitl.ops import Split

GOLDEN = Path(__file__).with_name("golden")
BLOCK = {"in_channels": 24, "expanded_channels": 72, "out_channels": 24, "kernel": 5, "se_channels": 8}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Scratch memory is one per thread, and a peak that of the threads in force."""
    threads.set_threads(2)
    yield
    threads.set_threads(os.cpu_count() or 1)


def digits() -> Any:
    return trained(minitl.networks.digits_irb(dropout=0.2), "mobiletl", 2)


def irb(method: str) -> Any:
    return trained(minitl.networks.irb(**BLOCK), method, 1)


def texts() -> dict[str, str]:
    vanilla, ours = (predict(irb(m), batch=2, resolution=7) for m in ("ft-blocks", "mobiletl"))
    network = digits()
    whole = predict(network, batch=8, resolution=24, optimizer_slots=1)
    return {
        "irb_ft_blocks": str(vanilla),
        "irb_mobiletl": str(ours),
        "irb_mobiletl_against_ft_blocks": against_table(ours, vanilla, ("mobiletl", "ft-blocks"), by_layer),
        "digits_irb_mobiletl_2": str(whole),
        "digits_irb_mobiletl_2_by_block": block_table(whole, block_of(network)),
    }


@pytest.mark.parametrize("name", texts())
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    """The tables, byte for byte. After a wanted change: pytest tests/accounting --overwrite, and read the diff."""
    path, text = GOLDEN / f"{name}.txt", texts()[name] + "\n"
    if request.config.getoption("--overwrite"):
        path.write_text(text)
    assert text == path.read_text()


def test_there_is_no_golden_file_without_a_test() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(texts())


def read(ledger: Ledger) -> Ledger:
    """What the JSON says, as a ledger again."""
    data = json.loads(json.dumps(ledger.to_json()))
    rows = []
    for row in data["rows"]:
        tuples = {name: tuple(row[name]) for name in ("needed_for", "shape", "shared_with")}
        rows.append(Row(**{**row, **tuples}))
    totals = data["totals"]
    for work in ("macs", "flops"):
        assert totals[work].pop("convention") == "standard"
        totals[work] = Split(**totals[work])
    return Ledger(tuple(rows), Totals(**totals, convention="standard"))


def test_json_round_trip() -> None:
    for ledger in (predict(digits(), batch=3, resolution=24), predict(irb("ft-blocks"), batch=1, resolution=5)):
        assert read(ledger) == ledger


def test_json_bytes_are_integers() -> None:
    data = predict(digits(), batch=3, resolution=24, optimizer_slots=2).to_json()
    for name, value in data["totals"].items():
        assert type(value) is int or name in ("macs", "flops")
    assert all(type(row["bytes"]) is int and type(row["bits"]) is int for row in data["rows"])


def test_csv_round_trip() -> None:
    ledger = predict(digits(), batch=3, resolution=24)
    rows = list(csv.DictReader(io.StringIO(ledger.to_csv())))
    assert list(rows[0]) == [field.name for field in fields(Row)]
    for text, row in zip(rows, ledger.rows, strict=True):
        values: dict[str, Any] = {**text, "bits": int(text["bits"]), "bytes": int(text["bytes"])}
        values["shape"] = tuple(int(n) for n in text["shape"].split("x") if n)
        values |= {name: tuple(filter(None, text[name].split(";"))) for name in ("needed_for", "shared_with")}
        assert Row(**values) == row


def test_rows_have_the_contract_s_columns() -> None:
    row = asdict(predict(irb("mobiletl"), batch=2, resolution=7).rows[0])
    assert row == {
        "layer": "expand", "op": "pointwise_conv", "role": "expand", "rule": "exact", "tensor": "x",
        "needed_for": ("grad_weight",), "shape": (2, 7, 7, 24), "dtype": "float32", "bits": 32, "bytes": 9408,
        "shared_with": (),
    }  # fmt: skip


def test_tensor_names_and_bits_are_the_contract_s() -> None:
    names = {
        "conv": {("x", 32)}, "pointwise_conv": {("x", 32)}, "depthwise_conv": {("x", 32)}, "linear": {("x", 32)},
        "batch_norm": {("x_hat", 32), ("inv_std", 32)}, "relu": {("mask", 1)}, "hard_sigmoid": {("mask", 1)},
        "hard_swish": {("x", 32), ("mask", 1)}, "scale": {("x", 32), ("gate", 32)}, "dropout": {("mask", 1)},
        "cross_entropy": {("probabilities", 32), ("labels", 64)}, "relu6": {("codes", 2), ("mask", 1)},
    }  # fmt: skip
    seen: dict[str, set[tuple[str, int]]] = {}
    for network in ("mobilenet_v3_small", "mobilenet_v2"):
        for how in (("ft-all", None), ("mobiletl", 3)):
            model = trained(minitl.networks.get(network, width=0.25), *how)
            for row in predict(model, batch=2, resolution=64).rows:
                seen.setdefault(row.op, set()).add((row.tensor, row.bits))
    assert seen == names


def test_sums_by_part_are_the_whole() -> None:
    network = digits()
    ledger = predict(network, batch=3, resolution=24)
    parts = sums(ledger.rows, block_of(network))
    assert list(parts) == ["block 6", "block 7", "head", "loss"]
    assert sum(parts.values()) == sum(sums(ledger.rows, by_layer).values()) == ledger.kept_bytes


def test_flops_are_counted_by_the_convention_named() -> None:
    """The paper's: 7 + 14 operations a value of a trained norm (and 3 + 12 a channel), where the standard has 7 + 7."""
    standard, paper = (predict(irb("ft-blocks"), batch=2, resolution=5, convention=name) for name in CONVENTIONS)
    assert paper.totals.macs == standard.totals.macs
    assert paper.totals.flops != standard.totals.flops
    assert paper.totals.to_json()["flops"]["convention"] == "paper"
    with pytest.raises(UnknownNameError, match="standard, paper"):
        predict(irb("ft-blocks"), batch=2, resolution=5, convention="mine")
