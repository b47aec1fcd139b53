"""The same bytes again: run after run, with one thread or two; dropout by its seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from models import batch, noise, stir, trained

import minitl
from minitl import ops
from minitl.arrays import Array
from minitl.kernels import threads
from minitl.layers import Dropout
from minitl.records import Var
from minitl.tape import Tape

DIGITS = [("ft-all", None), ("ft-norm", None), ("ft-bias", None), ("ft-blocks", 3), ("mobiletl", 3)]


def step(model: Any, images: Array, labels: Array, **options: Any) -> dict[str, bytes]:
    """Bytes of logits, loss, gradients and everything the step changed."""
    before = model.state_dict()
    tape = Tape(**options)
    logits = model(tape, images)
    loss = model.loss(tape, logits, labels)
    result = {"logits": logits.value, "loss": loss.value, **tape.backward(loss)}
    result |= {f"after {name}": value for name, value in model.state_dict().items()}
    model.load_state_dict(before)
    return {name: array.tobytes() for name, array in result.items()}


@pytest.fixture(autouse=True)
def any_number_of_threads() -> Iterator[None]:
    yield
    threads.set_threads(os.cpu_count() or 1)


@pytest.mark.parametrize(("method", "blocks"), DIGITS, ids=[name for name, _ in DIGITS])
def test_any_number_of_threads_and_either_path_give_the_same_bytes(method: str, blocks: int | None) -> None:
    model = stir(trained(minitl.networks.digits_irb(dropout=0.2), method, blocks))
    images, labels = batch(model, n=12, resolution=32)
    results = []
    for count in (1, 2, 3, 8):
        threads.set_threads(count)
        results += [step(model, images, labels, fused=fused) for fused in (True, False)]
    for other in results[1:]:
        assert [name for name, data in other.items() if data != results[0][name]] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"method": "mobiletl-exact"}, {"method": "mobiletl-recompute"}),
        ({"method": "mobiletl"}, {"method": "mobiletl", "checkpoint": True}),
        ({"method": "ft-all"}, {"method": "ft-all", "checkpoint": True}),
    ],
)
def test_computing_again_gives_the_same_bytes(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Also the running statistics, which must not move twice."""
    model = stir(minitl.networks.digits_irb(dropout=0.2))
    images, labels = batch(model, n=4, resolution=24)
    first, second = (step(trained(model, **how), images, labels) for how in (one, other))
    assert first.keys() == second.keys()
    assert [name for name, data in first.items() if data != second[name]] == []


# Dropout


def drop(x: Array, p: float, seed: int, path: str = "drop") -> Array:
    return Dropout(path, p)(Tape(seed=seed), Var(x)).value


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_dropout_drops_its_share(p: float) -> None:
    """The dropped number is binomial: 5 standard deviations are exceeded once in 2 million, and the seeds are fixed."""
    count = 40_000
    ones = np.ones((count // 100, 100), np.float32)
    for seed in range(3):
        y = drop(ones, p, seed)
        assert set(np.unique(y)) <= {np.float32(0), np.float32(1 / (1 - p))}
        assert abs(np.count_nonzero(y == 0) - count * p) < 5 * np.sqrt(count * p * (1 - p))


def test_dropout_follows_the_seed_and_the_layer() -> None:
    x = noise((50, 40))
    assert drop(x, 0.5, seed=1).tobytes() == drop(x, 0.5, seed=1).tobytes()
    others = [drop(x, 0.5, seed=2), drop(x, 0.5, seed=1, path="other")]
    for other in others:
        agree = np.mean((drop(x, 0.5, seed=1) == 0) == (other == 0))
        assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(x.size)  # as independent coins do


def test_dropout_is_gone_in_evaluation_and_at_zero() -> None:
    x = Var(noise((5, 4)))
    assert Dropout("drop", 0.5)(Tape(training=False), x) is x
    assert Dropout("drop", 0.0)(Tape(), x) is x


def test_the_seed_of_the_tape_reaches_the_step() -> None:
    model = trained(minitl.networks.digits_irb(dropout=0.5), "ft-last")
    images, labels = batch(model, resolution=16)
    one, again, other = (step(model, images, labels, seed=seed)["classifier.1.weight"] for seed in (1, 1, 2))
    assert one == again != other


def test_dropout_s_gradient_passes_where_the_value_did() -> None:
    x = np.abs(noise((30, 20))) + 1
    tape = Tape(seed=3)
    y = tape.run(ops.dropout, Var(x, needs_grad=True), layer="drop", role="dropout", attrs={"p": 0.25, "seed": 3})
    record: Any = tape.records[0]
    (gx,) = record.op.backward(record.saved, np.ones_like(x), attrs=record.attrs, needs=(True,))
    assert gx is not None
    assert np.allclose(gx * x, y.value, rtol=1e-15)
