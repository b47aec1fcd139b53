"""The networks with timm's names against timm's own models, in float64: names, shapes, logits, gradients.

`pytest -s tests/networks/test_timm.py` prints the largest differences found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import noise, trained

import minitl
from minitl.arrays import Array
from minitl.networks import Network
from minitl.tape import Tape

torch = pytest.importorskip("torch")
from timm_models import timm_model  # noqa: E402

# Rounding (u = 1.1e-16) through some 60 layers, as in test_network_torch.py; relative to the largest entry.
TOLERANCE = 1e-10

NETWORKS = [
    "mobilenetv2_035", "mnasnet_100", "semnasnet_100", "spnasnet_100", "fbnetc_100", "efficientnet_lite0",
    "efficientnet_b0", "mobilenetv3_small_075", "mobilenetv3_large_100", "tf_mobilenetv3_small_100",
    "tf_efficientnet_lite0",
]  # fmt: skip
WIDER = ["mobilenetv2_050", "mobilenetv2_100", "mobilenetv2_140", "mobilenetv3_small_100"]


def pair(name: str) -> tuple[Network, Any]:
    """Our network and timm's model, with the same numbers in them."""
    torch.set_num_threads(1)
    model = timm_model(name, 7)
    net = minitl.networks.get(name, num_classes=7, dtype="float64")
    own = net.state_dict()
    theirs = {key: value.numpy() for key, value in model.state_dict().items()}
    assert list(own) == list(theirs)
    net.load_state_dict({key: linear(value, own[key]) for key, value in theirs.items()})
    return net, model


def linear(theirs: Array, ours: Array) -> Array:
    """timm's hidden linear layer is a 1x1 convolution."""
    assert theirs.shape in (ours.shape, (*ours.shape, 1, 1))
    return theirs.reshape(ours.shape)


def nchw(x: Array) -> Any:
    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def difference(found: Array, expected: Any, scale: float = 0.0) -> float:
    other = linear(expected.detach().numpy(), found)
    return float(abs(found - other).max() / (scale or abs(other).max()))


@pytest.mark.parametrize("name", WIDER)
def test_names_conventions_and_logits(name: str) -> None:
    """The same table as another's below, of another width."""
    net, model = pair(name)
    norms = {(m.eps, m.momentum) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert norms == {(net.stem.norm.eps, net.stem.norm.momentum)}
    images = noise((1, 33, 40, 3))
    off = difference(net.predict(images), model.eval()(nchw(images)))
    print(f"\n{name}: relative difference of logits {off:.1e}")
    assert off < TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_gradients_and_statistics(name: str) -> None:
    """On sides that are even and odd from layer to layer; and without its conventions the network does not agree."""
    net, model = pair(name)
    norms = {(m.eps, m.momentum) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert norms == {(net.stem.norm.eps, net.stem.norm.momentum)}
    model.eval()
    worst = 0.0
    for side, other_side in ((33, 40), (52, 35)):
        images = noise((2, side, other_side, 3), side)
        worst = max(worst, difference(net.predict(images), model(nchw(images))))
    assert worst < TOLERANCE

    trained(net, "ft-all")
    model.train()
    images, labels = noise((3, 40, 36, 3)), np.array([0, 5, 2])
    tape = Tape()
    gradients = tape.backward(net.loss(tape, net(tape, images), labels))
    torch.nn.functional.cross_entropy(model(nchw(images)), torch.tensor(labels)).backward()
    expected = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert gradients.keys() == expected.keys()
    largest = max(float(abs(gradient).max()) for gradient in expected.values())
    flip = net.table["padding"] == "same"
    off = max(
        difference(g[:, :, ::-1, ::-1] if flip and g.ndim == 4 else g, expected[key], largest)
        for key, g in gradients.items()
    )
    assert off < TOLERANCE
    after = {key: value for key, value in model.state_dict().items() if "running" in key}
    assert max(difference(net.state_dict()[key], value) for key, value in after.items()) < TOLERANCE
    print(f"\n{name}: relative difference of logits {worst:.1e}, of gradients {off:.1e}")


@pytest.mark.parametrize("name", ["tf_mobilenetv3_small_100", "tf_efficientnet_lite0"])
def test_same_padding_is_not_symmetric_padding(name: str) -> None:
    net, model = pair(name)
    images = noise((2, 64, 64, 3))
    expected = model.eval()(nchw(images))
    symmetric = minitl.networks.from_table({**net.table, "padding": "symmetric"}, dtype="float64")
    symmetric.load_state_dict(net.state_dict())
    assert difference(net.predict(images), expected) < TOLERANCE
    assert difference(symmetric.predict(images), expected) > 0.01
