"""The same bytes again: run after run, with one thread or two; dropout by its seed; the portable path beside BLAS."""

from __future__ import annotations

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


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels part their work early, so that small data is in several chunks."""
    monkeypatch.setattr(threads, "WORTH_A_CHUNK", 1 << 18)


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


@pytest.mark.parametrize(("method", "blocks"), DIGITS, ids=[name for name, _ in DIGITS])
@pytest.mark.parametrize("portable", [False, True])
def test_one_thread_or_two_give_the_same_bytes(
    method: str, blocks: int | None, portable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maps are large enough for several chunks in every kernel that has them; which is asserted."""
    model = stir(trained(minitl.networks.digits_irb(dropout=0.2), method, blocks))
    images, labels = batch(model, n=3 if portable else 12, resolution=32)
    spans: list[int] = []
    original = threads.run

    def spy(task: Any, parts: list[tuple[int, int]]) -> None:
        spans.append(len(parts))
        original(task, parts)

    monkeypatch.setattr(threads, "run", spy)
    results = []
    for count in (1, 2, 3, 1):
        monkeypatch.setattr(threads, "_threads", count)
        monkeypatch.setattr(threads, "_pool", None)
        results.append(step(model, images, labels, portable=portable))
    assert max(spans) >= 3, "too small: nothing was split"
    assert sum(n > 1 for n in spans) > 40
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
    """Also the running statistics, which must not move twice.

    mobiletl-exact is compared op by op: recomputing does not run fused.
    """
    fused = other["method"] == one["method"]
    model = stir(minitl.networks.digits_irb(dropout=0.2))
    images, labels = batch(model, n=4, resolution=24)
    first, second = (step(trained(model, **how), images, labels, fused=fused) for how in (one, other))
    assert first.keys() == second.keys()
    assert [name for name, data in first.items() if data != second[name]] == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["ft-all", "mobiletl"])
def test_the_portable_path_agrees_with_the_fast_one(method: str, dtype: str) -> None:
    """BLAS and the ordered loops round differently, each sum of K terms by at most K u of its absolute terms.

    Relative errors add up over the 40 layers, some 16 roundings each (sums of up to 200 terms err by
    about the root of that), and norms that divide by deviations below 1 amplify them; a factor of 25
    is allowed for that: 2^14 u. In float32 this is 1e-3, still a hundred times less than a wrong
    term would make. It is of the largest gradient, for some are 0 but for rounding: those of shifts
    that the next batch norm takes out again.
    """
    model = stir(trained(minitl.networks.digits_irb(dtype=dtype), method))
    images, labels = batch(model, n=4, resolution=24)
    results = []
    for portable in (False, True):
        tape = Tape(portable=portable)
        loss = model.loss(tape, model(tape, images), labels)
        assert {r.attrs["portable"] for r in tape.records if "portable" in r.attrs} == ({True} if portable else set())
        results.append({"loss": loss.value, **tape.backward(loss)})
    u = float(np.finfo(dtype).eps) / 2
    largest = max(float(np.linalg.norm(g)) for g in results[0].values())
    for name, fast in results[0].items():
        assert fast.dtype == dtype
        assert np.linalg.norm(fast - results[1][name]) <= 2**14 * u * largest, name


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
    record = tape.records[0]
    (gx,) = record.op.backward(record.saved, np.ones_like(x), attrs=record.attrs, needs=(True,))
    assert gx is not None
    assert np.allclose(gx * x, y.value, rtol=1e-15)
