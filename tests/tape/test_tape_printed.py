"""A printed tape says what ran, in which shapes, and what is kept of it."""

from __future__ import annotations

import numpy as np

import minitl
from minitl.shadow import ShadowTape


def step() -> tuple[minitl.Tape, minitl.Var, minitl.Var]:
    net = minitl.networks.digits_irb(num_classes=5, seed=0)
    minitl.methods.get("mobiletl", 1).apply(net)
    tape = minitl.Tape()
    logits = net(tape, np.random.default_rng(0).standard_normal((4, 8, 8, 3), np.float32))
    return tape, logits, minitl.cross_entropy(tape, logits, np.arange(4))


def test_a_tape_is_printed_record_by_record() -> None:
    tape, _, loss = step()
    first, *lines = str(tape).splitlines()
    kept = minitl.accounting.ledger(tape).kept_bytes
    assert first == f"Tape of {len(tape.records)} records, {kept:,} bytes held for backward"
    assert repr(tape) == f"<{first}>"
    assert [line[5:] for line in lines] == [repr(record)[1:-1] for record in tape.records]
    assert lines[-2][5:] == "classifier.1 linear: (4, 192) -> (4, 5), keeps x 3,072 bytes"
    assert any(":sign: " in line and "keeps mask" in line for line in lines)
    assert any(line.endswith("keeps nothing") for line in lines)
    assert "0x" not in str(tape)
    tape.backward(loss)
    assert repr(tape) == f"<Tape of {len(tape.records)} records, {kept:,} bytes held until it was walked back>"
    assert repr(tape.records[-1]) == "<loss cross_entropy: (4, 5) -> (), keeps nothing>"


def test_a_value_says_where_it_comes_from() -> None:
    tape, logits, _ = step()
    assert repr(logits) == f"<Var (4, 5) float32, made by record {len(tape.records) - 2}, wants a gradient>"
    assert repr(minitl.Var(np.zeros((2, 3)))) == "<Var (2, 3) float64, an input, no gradient>"


def test_a_predicted_tape_can_be_printed() -> None:
    net = minitl.methods.get("mobiletl", 1).apply(minitl.networks.digits_irb(num_classes=5, seed=0))
    tape = ShadowTape()
    net(tape, tape.phantom((4, 8, 8, 3), "float32"))
    assert "keeps mask" in str(tape)
