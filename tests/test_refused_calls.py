"""A call that is refused changes nothing: weights, statistics, counters, plans, optimizer and tape are as before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import batch, stir, trained

import minitl
from minitl import methods
from minitl.accounting import measure
from minitl.accounting.plan import entries
from minitl.errors import MinitlError, ValueRangeError
from minitl.layers import FROZEN, LayerPlan, Norm
from minitl.networks import Model, Network
from minitl.step import loss_and_gradients
from minitl.tape import Tape
from minitl.training.data import Dataset, digits
from minitl.training.fit import fit
from minitl.training.optimizers import SGD, Adam

PAIR = digits([0, 1], size=8).take(np.arange(24))


def network(method: str = "ft-all", **options: Any) -> Network:
    return trained(stir(minitl.networks.digits_irb(num_classes=2, width=0.25)), method, **options)


def everything(model: Model) -> list[Any]:
    """All that a call could change: values, the very arrays that hold them, plans, counters, what rules carry."""
    arrays = [(p.name, id(p.value), p.value.tobytes(), p.scale, p.trained) for p in model.parameters()]
    layers: list[Any] = [(layer.plan, getattr(layer, "batches", None)) for layer in model.layers()]
    layers += [{name: a.tobytes() for name, a in layer.carried().items()} for layer in model.layers()]
    writable = [p.value.flags.writeable for p in model.parameters()]
    return [arrays, layers, writable, model.method, model.tuned_blocks, model.checkpoint]


def refused(model: Model, call: Callable[[], object], words: str | None = None) -> None:
    before = everything(model)
    with pytest.raises(MinitlError, match=words):
        call()
    assert everything(model) == before


# Methods


def last_layer_refuses(plan: LayerPlan) -> methods.Method:
    """Trains nothing, and asks its last layer for what it does not have."""
    return methods.Method("bad", "", lambda layer, blocks: plan if layer.role == "classifier" else FROZEN)


@pytest.mark.parametrize(
    "method",
    [
        methods.get("mobiletl", 99),
        methods.get("mobiletl", rules={"gelu": "sign"}),
        methods.get("mobiletl", rules={"expand_act": "signs"}),
        methods.get("ft-last", rules={"expand_act": ""}),
        last_layer_refuses(LayerPlan(train=frozenset({"scale"}))),
        last_layer_refuses(LayerPlan(rule="nonsense")),
        last_layer_refuses(LayerPlan(statistics="nonsense")),
        last_layer_refuses(LayerPlan(recompute=True)),
    ],
)
def test_a_method_that_cannot_be_followed(method: methods.Method) -> None:
    net = network("mobiletl", blocks=2, quantised=True)
    refused(net, lambda: method.apply(net))


def test_weights_that_eight_bits_cannot_hold() -> None:
    net = network()
    net.head.conv.parameters["weight"].value[0] = np.inf
    refused(net, lambda: trained(net, "ft-last", quantised=True), "expected finite weights to quantise")


# Planning and measuring


@pytest.mark.parametrize("options", [{}, {"quantised": True}, {"checkpoint": True}])
def test_planning_leaves_the_network_as_it_is(options: dict[str, bool]) -> None:
    """Also where it is not refused: it is a question, not an order."""
    net = network("mobiletl", blocks=2)
    before = everything(net)
    entries(net, batch=2, resolution=8, optimizer_slots=1, method=lambda n, k: methods.get(n, k, **options))
    assert everything(net) == before


@pytest.mark.parametrize(
    "ask", [minitl.accounting.predict, measure, lambda net, **k: entries(net, optimizer_slots=0, **k)]
)
@pytest.mark.parametrize("sizes", [{"batch": 0, "resolution": 8}, {"batch": 1, "resolution": 1}])
def test_impossible_steps_are_neither_predicted_nor_measured(ask: Callable[..., Any], sizes: dict[str, int]) -> None:
    net = network()
    refused(net, lambda: ask(net, **sizes))


# State dicts


@pytest.mark.parametrize("spoil", [lambda a: a[:1], lambda a: a * np.nan, lambda a: [[1], [1, 2]], lambda a: None])
def test_a_state_whose_last_array_is_bad(spoil: Callable[..., Any]) -> None:
    net = network()
    state = stir(copy.deepcopy(net), 5).state_dict()
    state["classifier.1.bias"] = spoil(state["classifier.1.bias"])
    refused(net, lambda: net.load_state_dict(state))


def test_a_state_for_a_network_with_a_read_only_array() -> None:
    net = network()
    state = stir(copy.deepcopy(net), 5).state_dict()
    net.classifier[-1].parameters["weight"].value.flags.writeable = False
    refused(net, lambda: net.load_state_dict(state), "the array is read-only; give the parameter a writable copy")


# Forward passes


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_forward_pass_that_fails_at_the_top(fused: bool, checkpoint: bool) -> None:
    """One image leaves a single value per channel after the fourth stride; the norms below it have run."""
    net = trained(stir(minitl.networks.mobilenet_v2(num_classes=2, width=0.1)), "ft-all", checkpoint=checkpoint)
    images, _ = batch(net, n=1, resolution=32)
    tape = Tape(fused=fused)
    refused(net, lambda: net(tape, images), "at least two values per channel")
    assert tape.records == []


@pytest.mark.parametrize("method", ["subspace", "subspace-fixed", "sparse-update"])
def test_a_first_forward_pass_that_is_refused_leaves_nothing_to_carry(method: str) -> None:
    """Bases that stay would for ever be those of images that nothing was learnt from."""
    net = network(method)
    refused(net, lambda: net(Tape(), PAIR.images[:4] * np.float32(1e38)), "finite output")


@pytest.mark.parametrize("scale", [1e20, 1e30])
def test_images_whose_statistics_are_not_finite(scale: float) -> None:
    net, tape = network(), Tape()
    images, _ = batch(net, n=4, resolution=8)
    refused(net, lambda: net(tape, images * np.float32(scale)), "expected finite statistics of the batch")
    assert tape.records == []
    assert np.isfinite(net.predict(images)).all()


def test_a_tape_goes_on_after_a_refusal() -> None:
    net, tape = network(), Tape()
    images, labels = batch(net, n=4, resolution=8, classes=2)
    refused(net, lambda: net(tape, images * np.float32(1e30)))
    twin = copy.deepcopy(net)
    one = tape.backward(net.loss(tape, net(tape, images), labels))
    _, _, other = loss_and_gradients(twin, images, labels)
    assert {name: g.tobytes() for name, g in one.items()} == {name: g.tobytes() for name, g in other.items()}


def test_logits_that_are_not_finite_are_no_prediction() -> None:
    net = network("ft-last")
    images, _ = batch(net, resolution=8)
    net.classifier[-1].parameters["weight"].value[...] = 3e38
    refused(net, lambda: net.predict(images * np.float32(1e3)), "digits_irb: expected a finite output, got nan or inf")


def test_statistics_that_cannot_be_written() -> None:
    net = network()
    net.head.norm.parameters["running_var"].value.flags.writeable = False
    refused(net, lambda: net(Tape(), batch(net, resolution=8)[0]), "running_var: the array is read-only")
    net.predict(batch(net, resolution=8)[0])  # moves none


# Steps


@pytest.mark.parametrize(
    "labels", [[0, 1, 2], [0, -1, 1], [0.0, 1.0, 1.0], [0, 1], [[0], [1], [1]], 1, None, [[0], [1, 1]]]
)
def test_a_step_on_labels_that_fit_no_class(labels: Any) -> None:
    net = network()
    images, _ = batch(net, resolution=8)
    refused(net, lambda: loss_and_gradients(net, images, labels), "loss")


@pytest.mark.parametrize("images", [None, [[1.0]], np.zeros((2, 8, 8, 3)), np.zeros((), np.float32)])
def test_a_step_on_what_are_no_images(images: Any) -> None:
    net = network()
    refused(net, lambda: loss_and_gradients(net, images, [0, 1]), "images")


# Fitting


def fitting(net: Network, data: Dataset = PAIR, **changes: Any) -> Callable[[], object]:
    settings = {"optimizer": SGD(0.01), "epochs": 2, "batch_size": 8}
    return lambda: fit(net, data, **{**settings, **changes})


def spoilt(value: float) -> Dataset:
    images = PAIR.images.copy()
    images[-1, 0, 0, 0] = value
    return Dataset(images, PAIR.labels, PAIR.classes)


def fails_in_the_end(step: int, steps: int) -> float:
    if step == steps - 1:
        raise ValueRangeError("schedule: over")
    return 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": SGD(1e30)},
        {"optimizer": SGD(1e6), "epochs": 9},
        {"optimizer": Adam(1e25), "epochs": 9},
        {"data": spoilt(np.nan)},
        {"data": spoilt(1e30)},
        {"data": Dataset(PAIR.images, PAIR.labels + 1, list("abc"))},
        {"schedule": fails_in_the_end},
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 8.5},
        {"seed": -1},
        {"optimizer": None},
    ],
)
def test_a_training_that_is_refused_anywhere(changes: dict[str, Any]) -> None:
    net, optimizer = network(), changes.get("optimizer") or SGD(0.01, momentum=0.9)
    if "optimizer" in changes:
        refused(net, fitting(net, **changes))
        return
    fitting(net, optimizer=optimizer)()  # so that there is a state to lose
    state = {name: (s.steps, [a.tobytes() for a in s.arrays]) for name, s in optimizer.state.items()}
    refused(net, fitting(net, **{"optimizer": optimizer, **changes}))
    assert state == {name: (s.steps, [a.tobytes() for a in s.arrays]) for name, s in optimizer.state.items()}


def test_a_refused_training_leaves_a_new_optimizer_new() -> None:
    net, optimizer = network(), Adam(0.01)
    refused(net, fitting(net, optimizer=optimizer, schedule=fails_in_the_end))
    assert optimizer.state == {}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("method", ["subspace", "subspace-fixed", "sparse-update", "slope"])
def test_a_refused_training_leaves_what_rules_carry(method: str, begun: bool) -> None:
    """Bases and chosen channels: none, or as they had come by then; and adaptors that trained at the end do not."""
    net = network(method)
    if begun:
        fitting(net)()
    refused(net, fitting(net, schedule=fails_in_the_end))


def test_nothing_to_train() -> None:
    net = minitl.networks.digits_irb(num_classes=2, width=0.25)
    refused(net, fitting(net), "nothing of the network is trained; apply a method to it first")


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("lr", [0.3, 3, 30, 300, 3e4, 3e8, 3e16, 3e32])
@pytest.mark.parametrize("method", ["ft-all", "mobiletl"])
def test_whatever_training_leaves_behind_is_accepted_again(method: str, lr: float, optimizer: Any) -> None:
    """Either it is refused and nothing has changed, or the state is finite and loads, and so do its predictions."""
    net = network(method)
    before = everything(net)
    try:
        history = fit(net, PAIR, optimizer=optimizer(lr), epochs=2, batch_size=8)
    except ValueRangeError:
        assert everything(net) == before
    else:
        assert np.isfinite(history.loss).all()
    twin = minitl.networks.digits_irb(num_classes=2, width=0.25)
    twin.load_state_dict(net.state_dict())
    for layer in twin.layers():
        assert not isinstance(layer, Norm) or np.isfinite(layer.parameters["running_var"].value).all()
