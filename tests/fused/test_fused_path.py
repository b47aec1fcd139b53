"""The fused path gives the bits of the op-by-op one, however parted and on any threads, within the oracle's bounds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import ACTIVATIONS, as_pixels, batch, block, block_attrs, block_inputs, noise, shuffle_tasks, stir, trained
from own import step as case_step
from scripts import run_script

import minitl
from minitl import oracle
from minitl.arrays import Array
from minitl.blocks import Build, ConvNorm, ConvSpec
from minitl.kernels import threads
from minitl.kernels.compiled.fetch import fetch
from minitl.kernels.tasks import Table
from minitl.layers import Norm, Scale
from minitl.records import Var
from minitl.tape import Tape

METHODS = ("ft", "mobiletl", "mobiletl-exact")  # the oracle's names
ALL = ("ft-all", "ft-bias", "ft-norm", "ft-blocks", "mobiletl", "mobiletl-exact")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    threads.set_threads(2)
    yield
    threads.set_threads(os.cpu_count() or 1)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """What `oracle.make` takes: any block, on maps whose packed bytes are shared by samples and on others."""
    channels, expand = draw(st.integers(2, 5)), draw(st.booleans())
    attrs = {
        "in_channels": channels,
        "expanded_channels": draw(st.integers(3, 9)) if expand else channels,
        "out_channels": draw(st.sampled_from([channels, channels + 1])),
        "kernel": draw(st.sampled_from([3, 5])),
        "stride": draw(st.sampled_from([1, 2])),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "se_channels": draw(st.sampled_from([0, 2])),
        "expand": expand,
    }
    n, h, w = draw(st.integers(1, 7)), draw(st.integers(3, 6)), draw(st.integers(3, 6))
    method, seed = draw(st.sampled_from(METHODS)), draw(st.integers(0, 2**16))
    return {"method": method, "attrs": attrs, "batch": n, "height": h, "width": w, "seed": seed}


def check_case(drawn: dict[str, Any], dtype: str) -> None:
    try:
        case = oracle.make("irb", **drawn, dtype=dtype)
        case.check(case_step(case, dtype, fused=True))
    except minitl.MinitlError as error:
        assert "no draw of" in str(error)  # noqa: PT017 - some blocks are too small to have a case


@given(drawn=cases(), dtype=st.sampled_from(["float32", "float64"]))
def test_random_blocks_are_within_the_bounds_of_the_oracle(drawn: dict[str, Any], dtype: str) -> None:
    """Outputs, gradients and statistics within derived bounds; what is kept too, and its codes exactly."""
    check_case(drawn, dtype)


def everything(model: Any, images: Array, **options: bool) -> dict[str, Array]:
    """All that a step computes, keeps and changes."""
    tape = Tape(**options)
    x = tape.variable(Var(images))
    y = model(tape, images) if model.num_classes else model.block(tape, x)
    got = {"y": y.value.copy()}
    for record in tape.records:
        for tensor, buffer in record.saved.buffers.items():
            got[f"kept {record.layer} {tensor}"] = buffer.array.copy()
    got["ledger"] = np.array([h.kept.nbytes for h in tape.holdings()])
    got |= tape.backward(y, np.random.default_rng(3).standard_normal(y.shape).astype(y.value.dtype))
    got |= {f"gx {source}": gradient for source, gradient in tape.input_gradients.items()}
    return got | {f"after {name}": value for name, value in model.state_dict().items()}


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    attrs=block_attrs((*ACTIVATIONS, "silu")),
    inputs=block_inputs(),
    method=st.sampled_from(ALL),
    dtype=st.sampled_from(["float32", "float64"]),
    samples=st.sampled_from([1, 3, 9]),
    count=st.sampled_from([1, 2, 3]),
)
def test_fused_and_op_by_op_give_the_same_bits(
    attrs: dict[str, Any], inputs: tuple[int, int, int], method: str, dtype: str, samples: int, count: int
) -> None:
    n, h, w = inputs
    images = noise((n * samples, h, w, attrs["in_channels"]), dtype=dtype)
    threads.set_threads(count)
    fused, plain = (everything(block(method, attrs, dtype=dtype), images, fused=fused) for fused in (True, False))
    assert fused.keys() == plain.keys()
    assert [name for name in plain if not np.array_equal(fused[name], plain[name])] == []


@pytest.mark.parametrize("method", ["mobiletl", "ft-all"])
def test_more_samples_than_a_group_of_means_gives_the_same_bits(method: str) -> None:
    """The gate's layers have gradients of several groups only where there are more than 192 samples."""
    attrs: dict[str, Any] = {"in_channels": 3, "expanded_channels": 5, "out_channels": 3, "kernel": 3, "stride": 1}
    attrs |= {"activation": "hard_swish", "se_channels": 4}
    images = noise((200, 2, 2, 3), dtype="float32")
    fused, plain = (everything(block(method, attrs, dtype="float32"), images, fused=fused) for fused in (True, False))
    assert [name for name in plain if not np.array_equal(fused[name], plain[name])] == []


@pytest.mark.parametrize("method", ["mobiletl", "ft-all", "ft-last"])
def test_networks_in_several_bands_give_the_same_bits(method: str) -> None:
    """Maps larger than a band, samples that share bytes of codes, groups of several samples."""
    images = noise((5, 96, 64, 3), dtype="float32")
    fused, plain = (
        everything(stir(trained(minitl.networks.mobilenet_v3_small(num_classes=5, width=0.5), method)), images, fused=f)
        for f in (True, False)
    )
    assert [name for name in plain if not np.array_equal(fused[name], plain[name])] == []


@pytest.mark.parametrize("method", ["mobiletl", "ft-all"])
def test_tasks_in_any_order_give_the_same_bits(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As threads may take them."""

    def step() -> dict[str, Array]:
        model = stir(trained(minitl.networks.mobilenet_v3_small(num_classes=5, width=0.5), method))
        return everything(model, noise((5, 48, 32, 3), dtype="float32"))

    plain = step()
    shuffle_tasks(monkeypatch, 0)
    shuffled = step()
    assert [name for name in plain if not np.array_equal(shuffled[name], plain[name])] == []


THIN = {  # a stem whose output has the shape of the images
    "base": "digits_irb",
    "divisor": 1,
    "stem": {"channels": 3, "stride": 1},
    "stages": [{"channels": 4}],
    "head": {"channels": 8},
}


@pytest.mark.parametrize(
    ("network", "method", "pixels"),
    [
        *(("mobilenet_v3_small", method, False) for method in ("mobiletl", "ft-all", "ft-bias")),
        (THIN, "ft-all", True),
    ],
)
def test_bands_that_are_fetched_lie_within_their_maps(
    network: Any, method: str, pixels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are of float maps: to read beyond an array need not be noticed."""
    run, fetched = Table.run, 0

    def checked(table: Table, *arrays: Array) -> None:
        nonlocal fetched
        for row, numbers, kernel in zip(table.rows, table.arrays, table.kernels, strict=True):
            if kernel is fetch():
                array, (first, count) = arrays[numbers[1] - 2], row[1:3]
                assert array.dtype == np.float32
                assert 0 <= first < first + count <= array.nbytes
                fetched += count
        run(table, *arrays)

    monkeypatch.setattr(Table, "run", checked)
    build = minitl.networks.get if isinstance(network, str) else minitl.networks.from_table
    model = stir(trained(build(network, num_classes=5, width=0.5 if isinstance(network, str) else 1.0), method))
    images = noise((5, 96, 64, model.input_channels), dtype="float32")
    if pixels:
        model.normalisation, images = "imagenet", as_pixels(images)
    everything(model, images)
    assert fetched > 0


FORMULA_FAULT = """
import numpy as np
import minitl
from minitl import ops, oracle
from minitl.kernels import rules
from own import step

original = rules._formulas["relu6"]
rules._formulas["relu6"] = lambda x: original(x) * 1.01
for fused in (True, False):
    case = next(c for c in oracle.cases("irb-mobiletl-relu6*"))
    try:
        case.check(step(case, "float32", fused=fused))
        print("missed")
    except oracle.Mismatch:
        print("caught")
"""


@pytest.mark.parametrize("jit", ["0", "1"])
def test_a_fault_in_a_formula_is_one_fault(jit: str) -> None:
    """It fails fused, op by op, and (without the compiler) in the lines one reads: there is one place for it."""
    assert run_script(FORMULA_FAULT, path=Path(__file__).parents[1], NUMBA_DISABLE_JIT=jit).split() == ["caught"] * 2


# Which parts of a network run fused


def fused_layers(model: Any, images: Array, **options: Any) -> set[str]:
    """Roles whose ops are run together."""
    tape = Tape(**options)
    ran: list[str] = []
    fused, frozen = tape.run_fused, tape.run_frozen

    def spy(run: Any, programs: Any, x: Any) -> Any:
        ran.extend(record.role for program in programs for record in program.records)
        return run(x)

    tape.run_fused = lambda p, x: spy(lambda x: fused(p, x), [p], x)  # type: ignore[method-assign, assignment]
    tape.run_frozen = lambda ps, x: spy(lambda x: frozen(ps, x), ps, x)  # type: ignore[method-assign, assignment]
    model(tape, images)
    return set(ran)


INNER = {"expand", "expand_norm", "expand_act", "depthwise", "depthwise_norm", "depthwise_act", "project", "add"}


@pytest.mark.parametrize("plan", [{"statistics": "batch"}, {"rule": "folded"}])
def test_what_the_frozen_path_does_not_do_runs_op_by_op(plan: dict[str, str]) -> None:
    """Where nothing trains: norms of the batch, which move their running statistics, and gates in the weights."""
    images = noise((3, 48, 32, 3), dtype="float32")

    def evaluated(fused: bool) -> dict[str, Array]:
        model = stir(trained(minitl.networks.mobilenet_v3_small(num_classes=5, width=0.25), "ft-last"))
        for layer in model.layers():
            if (isinstance(layer, Norm) and "statistics" in plan) or (isinstance(layer, Scale) and "rule" in plan):
                layer.plan = replace(layer.plan, **plan)
        return {"y": model(Tape(fused=fused), images).value, **model.state_dict()}

    fused, plain = evaluated(True), evaluated(False)
    assert [name for name in plain if not np.array_equal(fused[name], plain[name])] == []


@pytest.mark.parametrize(
    ("method", "blocks"),
    [("ft-all", None), ("ft-bias", None), ("ft-norm", None), ("mobiletl", 3), ("mobiletl-exact", 3)],
)
def test_whole_networks_run_fused(method: str, blocks: int | None) -> None:
    model = trained(minitl.networks.mobilenet_v3_small(num_classes=5, width=0.25), method, blocks)
    images, _ = batch(model)
    assert fused_layers(model, images) >= INNER | {"stem", "head_conv", "se_scale"}
    assert fused_layers(model, images, training=False) >= {"stem", "expand", "depthwise", "project", "head_conv"}
    assert fused_layers(model, images, fused=False) == set()


def test_every_rule_of_an_activation_runs_fused() -> None:
    for rule in minitl.ops.hard_swish.rules:
        model = trained(minitl.networks.irb(), "mobiletl", rules={"expand_act": rule})
        assert "expand" in fused_layers(model, noise((2, 7, 7, 96), dtype="float32"))


def test_a_changed_plan_or_momentum_makes_a_new_program() -> None:
    model, x = block("ft-blocks", {}), noise((2, 7, 7, 96))
    before = model.state_dict()
    model.block.project.norm.momentum = 0.0
    model(Tape(), x)
    kept = {name: np.array_equal(value, before[name]) for name, value in model.state_dict().items()}
    assert not kept["expand_norm.running_mean"]
    assert kept["project_norm.running_mean"]
    trained(model, "mobiletl")
    before = model.state_dict()
    model(Tape(), x)
    assert np.array_equal(model.state_dict()["expand_norm.running_mean"], before["expand_norm.running_mean"])


def test_a_value_of_another_tape_is_refused() -> None:
    model = block("mobiletl", {})
    x = Tape().variable(Var(noise((2, 7, 7, 96))))
    with pytest.raises(minitl.MinitlError, match="another tape"):
        model.block(Tape(), x)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "silu"])
def test_nan_is_not_swallowed(activation: str) -> None:
    op = getattr(minitl.ops, activation)
    assert np.isnan(op.forward(np.full((3, 16), np.nan, np.float32), needs=(False,))[0]).all()


def test_a_dense_convolution_of_one_channel_is_no_depthwise_one() -> None:
    build = Build(np.random.default_rng(0), "float64", 1e-5, 0.1)
    part, x = ConvNorm(ConvSpec("stem", 1, 5, kernel=3), ("a", "b", "c"), build), noise((2, 6, 6, 1))
    fused, plain = (part(Tape(fused=fused), Var(x)).value for fused in (True, False))
    assert np.array_equal(fused, plain)


# Threads and processes


def step(model: Any, images: Array, labels: Array) -> dict[str, bytes]:
    tape = Tape()
    loss = model.loss(tape, model(tape, images), labels)
    return {name: g.tobytes() for name, g in tape.backward(loss).items()} | {"loss": loss.value.tobytes()}


def network(method: str = "mobiletl") -> Any:
    return stir(trained(minitl.networks.digits_irb(), method))


def test_several_python_threads_at_once_give_what_one_gives() -> None:
    models = [network(method) for method in ("ft-all", "mobiletl", "ft-all", "mobiletl")]
    images, labels = batch(models[0], n=9, resolution=24)
    alone = [step(network(method), images, labels) for method in ("ft-all", "mobiletl", "ft-all", "mobiletl")]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda model: step(model, images, labels), models))
    assert together == alone


FORK = """
import hashlib, os
from test_fused_path import batch, network, step
from minitl.kernels import threads

threads.set_threads(2)
model = network()
images, labels = batch(model, n=9, resolution=24)
def digest():
    return hashlib.sha256(b"".join(step(network(), images, labels).values())).digest()
here = digest()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, digest())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.read(reader, 32) == here == digest()
print("same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_computes_the_same() -> None:
    assert run_script(FORK, path=Path(__file__).parent).strip() == "same"
