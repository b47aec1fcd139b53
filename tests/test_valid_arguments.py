"""What means something is taken in whatever form it comes: NumPy's integers, lists of labels, tensors of PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from models import batch, stir, trained

import minitl
from minitl import methods
from minitl.accounting import predict
from minitl.accounting.plan import entries, plan
from minitl.blocks import BlockSpec
from minitl.errors import DtypeError
from minitl.networks import Network
from minitl.step import loss_and_gradients
from minitl.training.data import Dataset, digits, split
from minitl.training.fit import accuracy, fit
from minitl.training.optimizers import SGD

KINDS: list[Any] = [
    np.int8,
    np.uint8,
    np.int16,
    np.int64,
    np.uint64,
    np.intp,
    lambda n: np.array(n),
    lambda n: np.array([n], np.int32)[0],
]
INTEGERS = pytest.mark.parametrize("integer", KINDS)


def network() -> Network:
    return stir(minitl.networks.digits_irb(num_classes=2, width=0.25))


def contents(net: Network) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in net.state_dict().items()}


@INTEGERS
def test_counts_of_any_integer_type(integer: Any) -> None:
    net = minitl.networks.digits_irb(num_classes=integer(2), width=0.25, seed=integer(3))
    twin = minitl.networks.digits_irb(num_classes=2, width=0.25, seed=3)
    assert contents(net) == contents(twin)
    methods.get("mobiletl", blocks=integer(2)).apply(net)
    assert type(net.tuned_blocks) is int
    one = predict(net, batch=integer(4), resolution=integer(8), optimizer_slots=integer(1))
    other = predict(trained(twin, "mobiletl", 2), batch=4, resolution=8, optimizer_slots=1)
    assert json.dumps(one.to_json()) == json.dumps(other.to_json())
    ways = entries(minitl.networks.irb(), batch=integer(2), resolution=integer(7), optimizer_slots=integer(0))
    json.dumps([asdict(way) for way in ways])
    assert plan(ways, budget=np.float32(1e9), of="peak").budget == 10**9
    images, _ = batch(net, n=3, resolution=8)
    assert net.predict(images, batch_size=integer(2)).shape == (3, 2)


@INTEGERS
def test_channels_of_any_integer_type(integer: Any) -> None:
    names = ("in_channels", "expanded_channels", "out_channels", "kernel", "stride", "se_channels")
    sizes = dict(zip(names, (4, 8, 4, 3, 1, 4), strict=True))
    block = minitl.networks.irb(**{name: integer(size) for name, size in sizes.items()}, activation="relu")
    spec = block.block.spec
    assert spec == BlockSpec(**sizes, activation="relu", expand=True)
    assert all(type(getattr(spec, name)) is int for name in sizes)


@INTEGERS
def test_training_counts_of_any_integer_type(integer: Any) -> None:
    data = digits([integer(0), integer(1)], size=integer(8))
    train, rest = split(data, integer(20), seed=integer(1))
    assert (len(train), len(rest)) == (20, len(data) - 20)
    net, twin = trained(network(), "ft-last"), trained(network(), "ft-last")
    one = fit(net, train, optimizer=SGD(0.1), epochs=integer(1), batch_size=integer(8), seed=integer(5))
    other = fit(twin, train, optimizer=SGD(0.1), epochs=1, batch_size=8, seed=5)
    assert one == other
    assert accuracy(net, train, batch_size=integer(8)) == accuracy(twin, train)


@pytest.mark.parametrize("kind", [list, tuple, np.uint8, np.array])
def test_labels_as_lists(kind: Any) -> None:
    net = trained(network(), "ft-last")
    images, labels = batch(net, n=4, resolution=8, classes=2)
    loss, _, _ = loss_and_gradients(net, images, kind(labels.tolist()))
    assert loss == loss_and_gradients(net, images, labels)[0]
    data = Dataset(images, kind(labels.tolist()), ["a", "b"])
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == labels.tolist()
    assert data.classes == ("a", "b")


def test_bytes_of_pixels_are_refused_until_they_are_normalised() -> None:
    """The remedy is one that can be followed as it stands, and leads to numbers near 1."""
    net = network()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    with pytest.raises(DtypeError) as caught:
        net.predict(pixels)
    remedy = str(caught.value).rpartition(": ")[2]
    assert remedy == "((images / 255 - mean) / std).astype('float32')"
    images = eval(remedy, {"images": pixels, "mean": np.float64([0.485, 0.456, 0.406]), "std": 0.225})
    assert abs(images).max() < 3
    net.predict(images)


# PyTorch's tensors


def test_parameters_of_pytorch_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    net, source = network(), stir(network(), 5).state_dict()
    tensors = {
        name: torch.nn.Parameter(torch.tensor(array)) if array.dtype.kind == "f" else torch.tensor(array)
        for name, array in source.items()
    }
    assert tensors["classifier.1.bias"].requires_grad
    net.load_state_dict(tensors)
    assert contents(net) == {name: array.tobytes() for name, array in source.items()}


def test_bfloat16_is_taken_exactly() -> None:
    torch = pytest.importorskip("torch")
    net, source = network(), stir(network(), 5).state_dict()
    tensors = {
        name: torch.tensor(array).bfloat16() if array.dtype.kind == "f" else torch.tensor([int(array)])
        for name, array in source.items()
    }
    net.load_state_dict(tensors)
    for name, array in net.state_dict().items():
        assert np.array_equal(array, tensors[name].float().numpy().reshape(array.shape))


@pytest.mark.parametrize("count", [np.int8(7), np.array([7]), np.float32(7), 7.0, 7])
def test_counters_of_any_kind(count: Any) -> None:
    net = network()
    net.load_state_dict({**net.state_dict(), "features.0.1.num_batches_tracked": count})
    assert net.state_dict()["features.0.1.num_batches_tracked"] == 7
