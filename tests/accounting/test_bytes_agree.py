"""Predicted, held and measured bytes are one number: row by row, for random blocks and for whole networks."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import block, block_attrs, block_inputs, needs_the_compiler, noise, tables, trained

import minitl
from minitl.accounting import Ledger, ledger, measure, predict
from minitl.arrays import Array
from minitl.fused.plan import Plan
from minitl.layers import Conv, LayerPlan
from minitl.networks import Model
from minitl.ops import relu
from minitl.records import Var
from minitl.saved import Saved
from minitl.shadow import ShadowTape
from minitl.step import forward_backward
from minitl.tape import Tape

METHODS = [("ft-all", None), ("ft-bias", None), ("ft-norm", None), ("ft-blocks", 1), ("mobiletl", 1)]
METHODS += [("mobiletl-exact", 1), ("mobiletl-recompute", 1)]
SMALL = [("digits_irb", {"dropout": 0.2}), ("mobilenet_v3_small", {"width": 0.25}), ("mobilenet_v2", {"width": 0.1})]
DTYPES = st.sampled_from(["float32", "float64"])


BOTH = (True, False)  # fused, and op by op


def forward(model: Model, images: Array, labels: Any, fused: bool) -> Tape:
    tape = Tape(fused=fused)
    model.loss(tape, model(tape, images), labels)
    return tape


def held(model: Model, images: Array, labels: Any, fused: bool) -> tuple[Ledger, int]:
    """The ledger of a real step before backward, and the NumPy bytes alive when only tape and parameters are."""
    tracemalloc.start()
    try:
        tape = forward(model, images.copy(), labels, fused)
        domain = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
        traced = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([domain]).traces)
    finally:
        tracemalloc.stop()
    return ledger(tape), traced


def foreseen(model: Model, shape: tuple[int, ...], fused: bool = True) -> Ledger:
    """`predict`, for images that need not be square."""
    tape = ShadowTape(fused=fused)
    forward_backward(model, tape, tape.phantom(shape, model.dtype), tape.phantom(shape[:1], "int64"))
    return ledger(tape)


def check(model: Model, images: Array, labels: Any = None, paths: tuple[bool, ...] = BOTH) -> None:
    ledgers = set()
    for fused in paths:
        forward(model, images, labels, fused)  # what Numba allocates while it compiles is not the step's
        real, traced = held(model, images, labels, fused)
        predicted = foreseen(model, images.shape, fused)
        assert predicted.rows == real.rows
        assert predicted.totals == real.totals
        assert sum(row.bytes for row in real.rows) == real.kept_bytes == traced
        ledgers.add(real)
    assert len(ledgers) == 1, "the fused path keeps something else"


@pytest.mark.parametrize(("method", "blocks"), METHODS, ids=[name for name, _ in METHODS])
@given(attrs=block_attrs(), shape=block_inputs(), dtype=DTYPES, input_grad=st.booleans())
def test_in_random_blocks(
    method: str, blocks: int | None, attrs: dict[str, Any], shape: tuple[int, int, int], dtype: str, input_grad: bool
) -> None:
    model = trained(block("ft-all", {**attrs, "input_grad": input_grad}, dtype=dtype), method, blocks)
    check(model, noise((*shape, attrs["in_channels"]), dtype=dtype))


@pytest.mark.parametrize("network", SMALL, ids=[name for name, _ in SMALL])
@settings(max_examples=6)
@given(
    method=st.sampled_from([*METHODS, ("ft-last", None), ("ft-blocks", 3), ("mobiletl", 4)]),
    options=st.sampled_from([{}, {"checkpoint": True}, {"quantised": True}, {"checkpoint": True, "quantised": True}]),
    n=st.integers(2, 4), height=st.integers(17, 40), width=st.integers(17, 40), dtype=DTYPES,
)  # fmt: skip
def test_in_networks(network: Any, method: Any, options: Any, n: int, height: int, width: int, dtype: str) -> None:
    name, size = network
    model = trained(minitl.networks.get(name, num_classes=7, dtype=dtype, **size), *method, **options)
    check(model, noise((n, height, width, 3), dtype=dtype), np.arange(n))


@pytest.mark.parametrize("method", minitl.methods.METHODS)
@settings(max_examples=max(1, settings().max_examples // 4))
@given(
    network=tables(), n=st.integers(2, 4), height=st.integers(16, 40), width=st.integers(16, 40),
    blocks=st.integers(1, 4), options=st.sampled_from([{}, {}, {"checkpoint": True}, {"quantised": True}]),
)  # fmt: skip
def test_in_random_networks_with_every_method(
    method: str, network: Any, n: int, height: int, width: int, blocks: int, options: Any
) -> None:
    """At length, fifty new networks a method:

    HYPOTHESIS_PROFILE=thorough pytest tests/accounting/test_bytes_agree.py -k every_method
    """
    table, dtype = network
    net = minitl.networks.from_table(table, dtype=dtype)
    few = min(blocks, len(net.blocks)) if minitl.methods.METHODS[method].takes_blocks else None
    net = trained(net, method, few, **options)
    check(net, noise((n, height, width, 3), dtype=dtype), np.arange(n) % 2)
    if net.late:
        net.begin_step(99, 100)
        check(net, noise((n, height, width, 3), dtype=dtype), np.arange(n) % 2)


@given(attrs=block_attrs(), shape=block_inputs(), input_grad=st.booleans())
def test_exact_keeps_no_more_than_mobiletl_and_recomputing_no_more_than_exact(
    attrs: dict[str, Any], shape: tuple[int, int, int], input_grad: bool
) -> None:
    model = minitl.networks.irb(**attrs, input_grad=input_grad)
    sizes = (*shape, attrs["in_channels"])
    signs, exact, recompute = (
        foreseen(trained(model, method), sizes).kept_bytes
        for method in ("mobiletl", "mobiletl-exact", "mobiletl-recompute")
    )
    assert recompute <= exact <= signs


@pytest.mark.parametrize(("method", "blocks"), [("ft-all", None), ("mobiletl", 3)])
def test_predict_and_measure_say_the_same(method: str, blocks: int | None) -> None:
    model = trained(minitl.networks.digits_irb(), method, blocks)
    predicted, measured = predict(model, batch=4, resolution=24), measure(model, batch=4, resolution=24)
    assert predicted.rows == foreseen(model, (4, 24, 24, 3)).rows
    assert predicted.kept_bytes == measured.held_bytes == measured.traced_bytes
    assert predicted.totals.peak_bytes == measured.predicted_peak_bytes


def test_measuring_and_predicting_change_nothing() -> None:
    model = trained(minitl.networks.digits_irb(), "ft-all")
    before = {name: array.tobytes() for name, array in model.state_dict().items()}
    predict(model, batch=2, resolution=16)
    measure(model, batch=2, resolution=16)
    assert {name: array.tobytes() for name, array in model.state_dict().items()} == before


@pytest.mark.parametrize("optimizer_slots", [0, 1, 2])
def test_totals_are_sums(optimizer_slots: int) -> None:
    model = trained(minitl.networks.digits_irb(dtype="float64"), "mobiletl", 2)
    got = predict(model, batch=3, resolution=20, optimizer_slots=optimizer_slots)
    size = dict.fromkeys(("trained", "frozen", "statistic"), 0)
    for p in model.parameters():
        size["statistic" if p.statistic else "trained" if p.trained else "frozen"] += p.value.size * 8
    t = got.totals
    assert t.kept_bytes == sum(row.bytes for row in got.rows)
    assert t.trained_parameter_bytes == t.gradient_bytes == size["trained"]
    assert (t.frozen_parameter_bytes, t.buffer_bytes) == (size["frozen"], size["statistic"])
    assert t.optimizer_bytes == optimizer_slots * size["trained"]
    assert t.total_bytes == sum(
        (t.kept_bytes, t.trained_parameter_bytes, t.frozen_parameter_bytes, t.buffer_bytes, t.gradient_bytes,
         t.optimizer_bytes)
    )  # fmt: skip
    assert t.peak_bytes is not None
    assert t.peak_bytes > sum(size.values()) + t.optimizer_bytes + t.kept_bytes
    assert t.macs.total == t.macs.forward + t.macs.grad_input + t.macs.grad_weight


# Planted faults

HOARD: list[Array] = []


def _greedy(x: Array, **call: Any) -> tuple[Array, Any]:
    y, saved = relu.functions.forward(x, **call)
    saved.keep("y", y.copy(), ("grad_input",))
    return y, saved


def _secretive(x: Array, **call: Any) -> tuple[Array, Any]:
    y, saved = relu.functions.forward(x, **call)
    HOARD.append(y.copy())
    return y, saved


@pytest.mark.parametrize("forward", [_greedy, _secretive])
def test_an_op_that_keeps_more_than_it_says_is_caught(forward: Any) -> None:
    attrs = {"in_channels": 4, "expanded_channels": 8, "out_channels": 4, "activation": "relu", "se_channels": 0}
    model, images = block("ft-blocks", attrs), noise((2, 5, 5, 4))
    check(model, images, paths=(False,))
    assert model.block.depthwise.act is not None
    model.block.depthwise.act.op = replace(relu, functions=replace(relu.functions, forward=forward))
    try:
        with pytest.raises(AssertionError):
            check(model, images, paths=(False,))
    finally:
        HOARD.clear()


@needs_the_compiler
def test_a_fused_step_that_keeps_more_than_it_says_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    attrs = {"in_channels": 4, "expanded_channels": 8, "out_channels": 4, "activation": "relu", "se_channels": 0}
    model, images = block("ft-blocks", attrs), noise((2, 5, 5, 4))
    original = Plan.play

    def secretive(plan: Plan, *arguments: Any) -> Any:
        y, *kept = original(plan, *arguments)
        if isinstance(y, np.ndarray):
            HOARD.append(y.copy())
        return [y, *kept]

    monkeypatch.setattr(Plan, "play", secretive)
    try:
        with pytest.raises(AssertionError):
            check(model, images, paths=(True,))
    finally:
        HOARD.clear()


# Memory that several rows hold


def _conv(path: str) -> Conv:
    conv = Conv(path, "expand", 3, 5, rng=np.random.default_rng(0), dtype="float32")
    conv.apply(LayerPlan(train=frozenset({"weight"})))
    return conv


def test_a_buffer_kept_twice_is_counted_once_and_names_both() -> None:
    tape = Tape()
    x = tape.images(noise((2, 4, 4, 3), dtype="float32"), 3, "float32")
    left, right = _conv("left")(tape, x), _conv("right")(tape, x)
    assert left.value is not right.value
    first, second = ledger(tape).rows
    assert (first.layer, first.bytes, first.shared_with) == ("left", 2 * 4 * 4 * 3 * 4, ("right",))
    assert (second.layer, second.bytes, second.shared_with) == ("right", 0, ("left",))
    assert first.shape == second.shape == (2, 4, 4, 3)
    assert ledger(tape).kept_bytes == first.bytes


def test_a_view_is_charged_what_its_owner_takes() -> None:
    def forward(x: Array, **call: Any) -> tuple[Array, Saved]:
        saved = Saved()
        saved.keep("x", np.zeros((10, *x.shape), x.dtype)[3:4, ..., ::2], ("grad_input",))
        return x.copy(), saved

    tape = Tape()
    x = Var(noise((2, 3, 4)), needs_grad=True)
    tape.run(replace(relu, functions=replace(relu.functions, forward=forward)), x, layer="view", role="expand_act")
    (row,) = ledger(tape).rows
    assert row.shape == (1, 2, 3, 2)
    assert row.bytes == tape.records[0].saved.nbytes == 10 * 2 * 3 * 4 * 8
