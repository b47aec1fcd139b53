"""Arrays handed out before weights were held in 8 bits: the network's own again afterwards, read-only meanwhile."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from models import batch, stir, trained

import minitl
from minitl.errors import UsageError
from minitl.networks import Network
from minitl.parameters import Parameter
from minitl.step import loss_and_gradients
from minitl.training.optimizers import SGD


def network(method: str = "ft-all", **options: Any) -> Network:
    return trained(stir(minitl.networks.digits_irb(num_classes=3, width=0.25)), method, **options)


def test_arrays_from_before_an_excursion_are_trained_after_it() -> None:
    net = network()
    held = net.trained_parameters()
    trained(net, "ft-last", quantised=True)
    trained(net, "ft-all")
    assert {name: id(array) for name, array in net.trained_parameters().items()} == {n: id(a) for n, a in held.items()}
    assert all(array.flags.writeable for array in held.values())
    _, _, gradients = loss_and_gradients(net, *batch(net, n=4, resolution=16, classes=3))
    before = {name: array.copy() for name, array in held.items()}
    SGD(0.1, momentum=0).step(held, gradients)
    for p in net.parameters():
        if p.trained:
            assert np.array_equal(p.value, before[p.name] - np.float32(0.1) * gradients[p.name])


def test_they_hold_the_rounded_weights() -> None:
    net = network()
    held = net.trained_parameters()
    trained(net, "ft-last", quantised=True)
    rounded = net.state_dict()
    trained(net, "ft-all")
    assert all(np.array_equal(array, rounded[name]) for name, array in held.items())


def test_meanwhile_they_cannot_be_stepped() -> None:
    net = network()
    held = net.trained_parameters()
    trained(net, "ft-last", quantised=True)
    ones = {name: np.ones_like(array) for name, array in held.items() if array.ndim > 1}
    with pytest.raises(UsageError, match="the array is read-only"):
        SGD(0.1).step(held, ones)
    with pytest.raises(ValueError, match="read-only"):
        held["features.0.0.weight"][...] = 0
    held["classifier.1.weight"][...] = 0  # this one is trained still
    assert not net.state_dict()["classifier.1.weight"].any()


def test_nobody_keeps_the_floats_but_who_holds_them() -> None:
    """Else eight bits would save nothing."""
    p = Parameter("w", np.ones((2, 3), np.float32))
    floats = weakref.ref(p.value)
    p.quantise()
    gc.collect()
    assert floats() is None
    p.restore()
    assert p.value.tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_has_arrays_of_its_own(duplicate: Any) -> None:
    net = network()
    held = net.trained_parameters()
    trained(net, "ft-last", quantised=True)
    twin = duplicate(net)
    before = {name: array.tobytes() for name, array in held.items()}
    trained(twin, "ft-all")
    for array in twin.trained_parameters().values():
        array += 1
    assert {name: array.tobytes() for name, array in held.items()} == before
    assert all(array.flags.writeable == (array.ndim == 1 or "classifier" in name) for name, array in held.items())


def test_a_state_loaded_meanwhile_is_what_they_hold_afterwards() -> None:
    net, state = network(), stir(network(), 9).state_dict()
    held = net.trained_parameters()
    trained(net, "ft-last", quantised=True)
    net.load_state_dict(state)
    trained(net, "ft-all")
    for name, array in held.items():
        assert abs(array - state[name]).max() <= abs(state[name]).max() / 254 * 1.01
    assert all(p.value is held[p.name] for p in net.parameters() if p.trained)


def test_a_read_only_weight_can_be_held_so_and_is_replaced_afterwards() -> None:
    weight = np.ones((2, 3), np.float32)
    weight.flags.writeable = False
    p = Parameter("w", weight)
    p.quantise()
    p.restore()
    assert p.value is not weight
    assert p.value.flags.writeable
    assert not weight.flags.writeable
