"""The fused path computes what the oracle says, within its bounds, however parted and on any threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import ACTIVATIONS, batch, block, noise, stir, trained
from own import step as case_step
from scripts import run_script
from threadpoolctl import threadpool_info

import minitl
from minitl import oracle
from minitl.arrays import Array
from minitl.blocks import Build, ConvNorm, ConvSpec
from minitl.fused import forward, samples
from minitl.kernels import inplace, threads
from minitl.records import Var
from minitl.tape import Tape

METHODS = ("ft", "mobiletl", "mobiletl-exact")


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


def check_case(drawn: dict[str, Any], group: int, dtype: str) -> None:
    before = samples.WORTH_A_GROUP
    samples.WORTH_A_GROUP = group
    try:
        case = oracle.make("irb", **drawn, dtype=dtype)
        case.check(case_step(case, dtype, fused=True))
    except minitl.MinitlError as error:
        assert "no draw of" in str(error)  # noqa: PT017 - some blocks are too small to have a case
    finally:
        samples.WORTH_A_GROUP = before


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(drawn=cases(), group=st.sampled_from([1, 20, 40, 1000]), dtype=st.sampled_from(["float32", "float64"]))
def test_random_blocks_are_within_the_bounds_of_the_oracle(drawn: dict[str, Any], group: int, dtype: str) -> None:
    """Outputs, gradients and statistics within derived bounds; what is kept too, and its codes exactly.

    However the batch is parted: `group` is the least number of rows that go together.
    """
    check_case(drawn, group, dtype)


def planted(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "a mask that lets everything pass":
        monkeypatch.setattr(inplace, "keep_where_one", lambda *_: None)
    elif fault == "a gate that is forgotten":
        monkeypatch.setattr(inplace, "gate_and_add", lambda g, gate, more: np.add(g, more[:, None, None], out=g))
    elif fault == "parts that are not joined":
        monkeypatch.setattr(inplace, "join_moments", lambda n, m, s, mean, sq: (mean.fill(m[0, 0]), sq.fill(s[0, 0])))
    elif fault == "shared bytes that are not joined":
        original = inplace.activate
        monkeypatch.setattr(
            inplace,
            "activate",
            lambda *a: (original(*a), a[7].fill(0)),  # the edge
        )
    elif fault == "a slope that is not read off the output":
        monkeypatch.setattr(inplace, "slope_over_output", lambda y, g, *_: np.copyto(y, g))
    elif fault == "a scale that is not folded in":
        original_fold = forward.scale_and_shift
        monkeypatch.setattr(
            forward, "scale_and_shift", lambda p, eps: (original_fold(p, eps)[0] ** 0, original_fold(p, eps)[1])
        )


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("mobiletl", "a mask that lets everything pass"),
        ("mobiletl", "a gate that is forgotten"),
        ("ft", "parts that are not joined"),
        ("mobiletl", "shared bytes that are not joined"),
        ("mobiletl", "a scale that is not folded in"),
        ("mobiletl-exact", "a slope that is not read off the output"),
    ],
)
def test_a_fault_in_the_fused_path_is_caught(method: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attrs = {
        "in_channels": 4, "expanded_channels": 8, "out_channels": 4, "kernel": 3, "stride": 1,
        "activation": "hard_swish", "se_channels": 3, "expand": True,
    }  # fmt: skip
    drawn = {"method": method, "attrs": attrs, "batch": 3, "height": 5, "width": 5, "seed": 1}
    check_case(drawn, 1, "float32")
    planted(monkeypatch, fault)
    with pytest.raises(oracle.Mismatch):
        check_case(drawn, 1, "float32")


# Which parts of a network run fused


def fused_layers(model: Any, images: Array, **options: Any) -> set[str]:
    """Roles whose ops are run together."""
    tape = Tape(**options)
    ran: list[str] = []
    original = tape.run_fused

    def spy(program: Any, x: Any) -> Any:
        ran.extend(record.role for record in program.records)
        return original(program, x)

    tape.run_fused = spy  # type: ignore[method-assign]
    model(tape, images)
    return set(ran)


INNER = {"expand", "expand_norm", "expand_act", "depthwise", "depthwise_norm", "depthwise_act", "project", "add"}


@pytest.mark.parametrize(
    ("method", "blocks"),
    [("ft-all", None), ("ft-bias", None), ("ft-norm", None), ("mobiletl", 3), ("mobiletl-exact", 3)],
)
def test_whole_networks_run_fused(method: str, blocks: int | None) -> None:
    model = trained(minitl.networks.mobilenet_v3_small(num_classes=5, width=0.25), method, blocks)
    images, _ = batch(model)
    assert fused_layers(model, images) >= INNER | {"stem", "head_conv", "se_scale"}
    assert fused_layers(model, images, training=False) >= {"stem", "expand", "depthwise", "project", "head_conv"}
    for off in ({"fused": False}, {"portable": True}):
        assert fused_layers(model, images, **off) == set()


def test_a_rule_the_fused_path_does_not_know_runs_op_by_op() -> None:
    model = trained(minitl.networks.irb(), "mobiletl", rules={"expand_act": "few2"})
    assert "expand" not in fused_layers(model, noise((2, 7, 7, 96), dtype="float32"))


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


@pytest.mark.parametrize("activation", ["relu6", "hard_swish"])
def test_nan_is_not_swallowed(activation: str) -> None:
    row = np.full((1, 16), np.nan, np.float32)
    empty = np.zeros((1, 16), np.uint8)
    top = 6.0 if activation == "relu6" else np.inf
    inplace.activate(row, np.zeros(16, np.float32), activation != "relu6", top, 0, np.zeros(2), empty, empty[0], 0)
    assert np.isnan(row).all()


def test_a_dense_convolution_of_one_channel_is_no_depthwise_one() -> None:
    build = Build(np.random.default_rng(0), "float64", 1e-5, 0.1)
    part, x = ConvNorm(ConvSpec("stem", 1, 5, kernel=3), ("a", "b", "c"), build), noise((2, 6, 6, 1))
    fused, plain = (part(Tape(fused=fused), Var(x)).value for fused in (True, False))
    assert np.abs(fused - plain).max() < 1e-12


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
    blas_before = [library["num_threads"] for library in threadpool_info()]
    alone = [step(network(method), images, labels) for method in ("ft-all", "mobiletl", "ft-all", "mobiletl")]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda model: step(model, images, labels), models))
    assert together == alone
    assert [library["num_threads"] for library in threadpool_info()] == blas_before


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
assert threads._pool is not None
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
