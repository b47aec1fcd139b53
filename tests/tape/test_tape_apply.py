"""Gradients applied as they come give a separate step's parameters; what changed behind the tape's back is seen."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import batch, stir, trained

import minitl
from minitl.arrays import Array
from minitl.errors import UsageError
from minitl.step import forward_backward
from minitl.tape import Tape
from minitl.training.optimizers import SGD, Adam, Optimizer

METHODS = [
    ("ft-all", None),
    ("ft-bias", None),
    ("ft-norm", None),
    ("mobiletl", 3),
    ("mobiletl-exact", 3),
    ("mobiletl-recompute", 2),
]
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": lambda: SGD(0.05),
    "momentum": lambda: SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda: Adam(1e-3),
}


def network(method: str, blocks: int | None) -> Any:
    return stir(trained(minitl.networks.digits_irb(), method, blocks))


def after(method: str, blocks: int | None, optimizer: Optimizer, *, apply: bool, fused: bool) -> dict[str, bytes]:
    net = network(method, blocks)
    images, labels = batch(net, n=4, resolution=24)
    for _ in range(3):
        tape = Tape(fused=fused)
        _, _, gradients = forward_backward(net, tape, images, labels, apply=optimizer if apply else None)
        assert not (apply and gradients)
        if not apply:
            optimizer.step(net.trained_parameters(), gradients)
    return {name: value.tobytes() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("method", "blocks"), METHODS, ids=[name for name, _ in METHODS])
def test_applied_as_they_come_gradients_give_the_bytes_of_a_separate_step(
    method: str, blocks: int | None, optimizer: str
) -> None:
    make = OPTIMIZERS[optimizer]
    separate = after(method, blocks, make(), apply=False, fused=True)
    for fused in (True, False):
        assert after(method, blocks, make(), apply=True, fused=fused) == separate


def test_a_norm_of_all_gradients_cannot_be_clipped_as_they_come() -> None:
    net = network("ft-all", None)
    images, labels = batch(net, n=2, resolution=16)
    tape = Tape()
    loss = net.loss(tape, net(tape, images), labels)
    before = net.state_dict()
    with pytest.raises(UsageError, match="global norm"):
        tape.backward(loss, apply=SGD(0.1, clip_norm=1.0))
    assert all(np.array_equal(value, before[name]) for name, value in net.state_dict().items())
    assert tape.backward(loss)  # nothing was walked back


def change_weights(net: Any, images: Array) -> None:
    net.trained_parameters()["features.6.conv.0.0.weight"] *= 1.01


def change_images(net: Any, images: Array) -> None:
    images += 1


def freeze(net: Any, images: Array) -> None:
    minitl.methods.get("ft-last", quantised=True).apply(net)


@pytest.mark.parametrize("change", [change_weights, change_images, freeze])
@pytest.mark.parametrize("fused", [True, False])
def test_what_changed_behind_the_tape_s_back_is_refused(change: Callable[[Any, Array], None], fused: bool) -> None:
    net = network("ft-all", None)
    images, labels = batch(net, n=4, resolution=16)
    tape = Tape(fused=fused)
    loss = net.loss(tape, net(tape, images), labels)
    change(net, images)
    with pytest.raises(UsageError, match="changed between the forward pass and backward"):
        tape.backward(loss)


def test_images_that_backward_does_not_need_are_let_go() -> None:
    net = minitl.methods.get("mobiletl", 1).apply(minitl.networks.digits_irb(num_classes=5, seed=0))
    tape, images = minitl.Tape(), np.ones((2, 8, 8, 3), np.float32)
    alive = weakref.ref(images)
    net(tape, images)
    del images
    assert alive() is None
    assert len(tape.records) > 0
