"""State dicts: torchvision's counts, copies both ways, all or nothing; and through safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from models import batch, stir, trained

import minitl
from minitl.arrays import Array
from minitl.errors import DtypeError, MinitlError, ShapeError, UnknownNameError, ValueRangeError
from minitl.networks import Network
from minitl.tape import Tape

WEIGHT, VARIANCE, COUNT = (
    "features.1.conv.0.0.weight",
    "features.1.conv.0.1.running_var",
    "features.0.1.num_batches_tracked",
)


def digits(**options: Any) -> Network:
    return minitl.networks.digits_irb(**options)


def contents(net: Network) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in net.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mobilenet_v2", 3_504_872),
        ("mobilenet_v3_small", 2_542_856),
        ("mobilenet_v3_large", 5_483_032),
        ("proxyless_mobile", 4_080_512),
    ],
)
def test_parameter_counts_at_1000_classes(name: str, published: int) -> None:
    net = minitl.networks.get(name)
    assert sum(p.value.size for p in net.parameters() if not p.statistic) == published


def test_round_trip() -> None:
    one, other = stir(digits(seed=1), 1), digits(seed=2)
    assert contents(one) != contents(other)
    other.load_state_dict(one.state_dict())
    assert contents(one) == contents(other)
    images, _ = batch(one, resolution=16)
    assert one.predict(images).tobytes() == other.predict(images).tobytes()


def test_both_ways_are_copies() -> None:
    net = digits()
    before = contents(net)
    state = net.state_dict()
    for array in state.values():
        array += 1
    assert contents(net) == before
    net.load_state_dict(state)
    loaded = contents(net)
    assert loaded != before
    for array in state.values():
        array += 1
    assert contents(net) == loaded


def test_loading_keeps_the_arrays_an_optimizer_holds() -> None:
    net = trained(digits(), "ft-last")
    held = net.trained_parameters()["classifier.1.weight"]
    net.load_state_dict(stir(digits(), 3).state_dict())
    assert net.trained_parameters()["classifier.1.weight"] is held
    assert held.tobytes() == net.state_dict()["classifier.1.weight"].tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floats_are_converted(dtype: str) -> None:
    net = digits()
    state = {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in stir(digits()).state_dict().items()}
    net.load_state_dict(state)
    for name, array in net.state_dict().items():
        assert np.array_equal(array, state[name].astype("f4") if state[name].dtype.kind == "f" else state[name])
        assert array.dtype.name in ("float32", "int64")
        assert array.dtype.isnative


def test_counters_may_be_missing() -> None:
    net = digits()
    state = {k: v for k, v in stir(digits()).state_dict().items() if not k.endswith("num_batches_tracked")}
    net.load_state_dict(state)
    assert net.state_dict()[COUNT] == 0


def without(state: dict[str, Array], name: str) -> dict[str, Any]:
    return {k: v for k, v in state.items() if k != name}


SPOILT = {
    "missing": (lambda s: without(s, WEIGHT), UnknownNameError, f"1 names missing ['{WEIGHT}'], 0 unexpected []"),
    "unexpected": (lambda s: {**s, "extra": s[WEIGHT]}, UnknownNameError, "0 names missing [], 1 unexpected ['extra']"),
    "renamed": (lambda s: {**without(s, WEIGHT), "w": s[WEIGHT]}, UnknownNameError, "1 unexpected ['w']"),
    "empty": (lambda s: {}, UnknownNameError, "state dict does not fit digits_irb: "),
    "shape": (lambda s: {**s, WEIGHT: s[WEIGHT][:1]}, ShapeError, f"{WEIGHT}: expected shape (32, 16, 1, 1), got (1,"),
    "transposed": (lambda s: {**s, WEIGHT: s[WEIGHT].T}, ShapeError, "expected shape (32, 16, 1, 1), got (1, 1, "),
    "broadcast": (lambda s: {**s, VARIANCE: np.float32(1)}, ShapeError, f"{VARIANCE}: expected shape (32,), got ()"),
    "nan": (lambda s: {**s, WEIGHT: s[WEIGHT] * np.nan}, ValueRangeError, f"{WEIGHT}: expected finite float32 values"),
    "overflow": (
        lambda s: {**s, WEIGHT: np.full((32, 16, 1, 1), 1e300)}, ValueRangeError, "finite float32 values, got NaN"
    ),
    "integers": (
        lambda s: {**s, VARIANCE: np.ones(32, int)}, DtypeError, f"{VARIANCE}: expected floating point, got int64"
    ),
    "negative variance": (
        lambda s: {**s, VARIANCE: s[VARIANCE] - 2}, ValueRangeError, f"{VARIANCE}: expected no negative variance, got"
    ),
    "counter of floats": (lambda s: {**s, COUNT: np.array(1.5)}, ValueRangeError, f"{COUNT}: expected a count"),
    "negative counter": (lambda s: {**s, COUNT: np.array(-1)}, ValueRangeError, "expected a count, 0 or more, got -1"),
    "counters": (lambda s: {**s, COUNT: np.zeros(2, int)}, ValueRangeError, "expected a count, 0 or more"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_bad_state_is_refused_and_changes_nothing(case: str) -> None:
    spoil, kind, words = SPOILT[case]
    net = digits()
    before = contents(net)
    state = spoil(stir(digits(), 5).state_dict())
    with pytest.raises(kind) as caught:
        net.load_state_dict(state)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert contents(net) == before


@pytest.mark.parametrize(("seed", "name"), [(1, "digits_irb"), (2, "mobilenet_v3_small")])
def test_through_safetensors(tmp_path: Path, seed: int, name: str) -> None:
    net = stir(minitl.networks.get(name, width=0.5), seed)
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(net.state_dict(), path)
    other = minitl.networks.get(name, width=0.5)
    other.load_state_dict(safetensors.numpy.load_file(path))
    assert contents(other) == contents(net)


def test_what_is_saved_of_a_network_is_contiguous(tmp_path: Path) -> None:
    """`save_file` of most versions of safetensors writes an array's memory and takes no notice of its strides.

    A weight transposed on its way (as from another layout) is therefore put in order first; all
    arrays of `state_dict` are.
    """
    net, path = stir(digits()), tmp_path / "weight.safetensors"
    weight = net.state_dict()["classifier.1.weight"]
    turned = np.ascontiguousarray(weight.T).T
    assert np.array_equal(turned, weight)
    safetensors.numpy.save_file({"w": np.ascontiguousarray(turned)}, path)
    assert np.array_equal(safetensors.numpy.load_file(path)["w"], weight)
    assert all(array.flags.c_contiguous for array in net.state_dict().values())
    net.load_state_dict({**net.state_dict(), "classifier.1.weight": turned})
    assert all(array.flags.c_contiguous for array in net.state_dict().values())


# Building


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"num_classes": 0}, ValueRangeError, "expected num_classes a whole number from 1 to 1048576, got 0"),
        ({"num_classes": 2.5}, ValueRangeError, "num_classes"),
        ({"num_classes": "10"}, ValueRangeError, "num_classes"),
        ({"num_classes": True}, ValueRangeError, "num_classes"),
        ({"width": 0}, ValueRangeError, "expected width above 0, at most 10, got 0"),
        ({"width": -1.0}, ValueRangeError, "width"),
        ({"width": float("nan")}, ValueRangeError, "width"),
        ({"width": "1"}, ValueRangeError, "width"),
        ({"dropout": 1.0}, ValueRangeError, "expected dropout at least 0, below 1, got 1.0"),
        ({"dropout": -0.1}, ValueRangeError, "dropout"),
        ({"dropout": float("nan")}, ValueRangeError, "dropout"),
        ({"dtype": "float16"}, DtypeError, "network: expected float32 or float64, got float16"),
        ({"dtype": None}, DtypeError, "expected float32 or float64, got None"),
    ],
)
@pytest.mark.parametrize("name", minitl.networks.NETWORKS)
def test_bad_options(name: str, options: dict[str, Any], kind: type[MinitlError], words: str) -> None:
    with pytest.raises(kind) as caught:
        minitl.networks.get(name, **options)
    assert words in str(caught.value)
    assert str(caught.value).startswith((f"{name}: ", "network: "))


def test_an_unknown_network() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown network 'mobilenet' .*; choose one of: mobilenet_v2, "):
        minitl.networks.get("mobilenet")


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"kernel": 4}, "irb: expected kernel to be an odd number, got 4"),
        ({"kernel": 0}, "kernel"),
        ({"stride": 3}, "irb: expected stride to be 1 or 2, got 3"),
        ({"in_channels": 0}, "irb: expected in_channels to be a whole number, at least 1, got 0"),
        ({"out_channels": 2.5}, "channels"),
        ({"se_channels": -1}, "irb: expected se_channels to be a whole number, at least 0, got -1"),
        ({"expand": False}, "irb: expected expanded_channels to be those coming in, without expand, got 576"),
        (
            {"activation": "gelu"},
            "expand_act: unknown activation 'gelu' (did you mean 'relu'?); choose one of: hard_sigmoid, hard_swish",
        ),
        ({"width": 2}, "irb: unknown attribute 'width'; choose one of: in_channels, expanded_channels, out_channels"),
    ],
)
def test_bad_blocks(attrs: dict[str, Any], words: str) -> None:
    with pytest.raises(MinitlError) as caught:
        minitl.networks.irb(**attrs)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8", None])
@pytest.mark.parametrize("name", ["batch", "resolution"])
def test_bad_sizes_to_predict(name: str, value: Any) -> None:
    with pytest.raises(ValueRangeError, match=f"digits_irb: expected {name} of at least 1, got {value}"):
        minitl.accounting.predict(trained(digits(), "ft-all"), **{"batch": 2, "resolution": 16, name: value})


@pytest.mark.parametrize(
    ("name", "method", "layer"),
    [
        ("mobilenet_v2", "ft-all", "features.14.conv.1.1"),
        ("mobilenet_v2", "mobiletl", "features.14.conv.3"),
        ("mobilenet_v3_small", "ft-all", "features.9.block.1.1"),
        ("digits_irb", "ft-norm", None),
    ],
)
def test_one_value_a_channel_has_no_variance(name: str, method: str, layer: str | None) -> None:
    """A single image of 32 pixels is one position at the top; the error names the layer and a way out."""
    net = trained(minitl.networks.get(name, width=0.25), method)
    images, _ = batch(net, n=1, resolution=32 if layer else 1)
    for run in (
        lambda: net(Tape(), images),
        lambda: minitl.accounting.predict(net, batch=1, resolution=images.shape[1]),
    ):
        with pytest.raises(ShapeError) as caught:
            run()
        assert str(caught.value).startswith(f"{layer or 'features.0.1'} (batch_norm): expected at least two values")
        assert "use a larger batch or resolution, or a method that freezes" in str(caught.value)
    trained(net, "ft-last")
    assert net(Tape(), images).shape == (1, net.num_classes)
