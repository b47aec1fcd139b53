"""A plan that says what a layer does not have is refused by every kind of layer; nothing is ignored in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import minitl
from minitl.errors import MinitlError, RuleError, UnknownNameError, UsageError
from minitl.layers import FROZEN, Activation, Layer, LayerPlan, Norm

EXPAND = "expand"


def one_of_each_role() -> Iterator[Layer]:
    seen = set()
    for name in ("digits_irb", "mobilenet_v3_small", "mobilenet_v2"):
        for layer in minitl.networks.get(name, num_classes=2, width=0.25).layers():
            key = (layer.role, getattr(getattr(layer, "op", None), "name", ""))
            if key not in seen:
                seen.add(key)
                yield layer


LAYERS = {f"{layer.role}-{type(layer).__name__}-{number}": layer for number, layer in enumerate(one_of_each_role())}
EVERY = pytest.mark.parametrize("kind", LAYERS)


def refused(layer: Layer, plan: Any, error: type[MinitlError], words: str) -> None:
    layer.apply(FROZEN)
    with pytest.raises(error, match=words) as caught:
        layer.apply(plan)
    assert str(caught.value).startswith(layer.path)
    assert layer.plan is FROZEN
    assert not any(p.trained for p in layer.parameters.values())


def test_there_are_layers_of_every_kind() -> None:
    assert len({type(layer) for layer in LAYERS.values()}) == 8
    assert len(LAYERS) > 25


@EVERY
def test_an_unknown_rule(kind: str) -> None:
    refused(LAYERS[kind], LayerPlan(rule="nonsense"), UnknownNameError, "unknown backward rule 'nonsense'; choose one")


@EVERY
def test_unknown_statistics(kind: str) -> None:
    refused(LAYERS[kind], LayerPlan(statistics="nonsense"), UnknownNameError, "unknown statistics 'nonsense'; choose")
    if not isinstance(LAYERS[kind], Norm):
        refused(LAYERS[kind], LayerPlan(statistics="batch"), UnknownNameError, "choose one of: frozen")


@EVERY
def test_recomputing_what_is_no_expanding_convolution(kind: str) -> None:
    layer = LAYERS[kind]
    if layer.role == EXPAND:
        layer.apply(LayerPlan(recompute=True))
    else:
        refused(layer, LayerPlan(recompute=True), RuleError, "recompute is for an expanding convolution; leave it out")


@EVERY
def test_training_what_is_not_there(kind: str) -> None:
    refused(LAYERS[kind], LayerPlan(train=frozenset({"gain"})), UnknownNameError, "unknown trained parameter 'gain'")
    refused(LAYERS[kind], LayerPlan(train={"running_mean"}), UnknownNameError, "'running_mean'")


@EVERY
@pytest.mark.parametrize("plan", [None, "frozen", {"train": ()}])
def test_what_is_no_plan(kind: str, plan: Any) -> None:
    refused(LAYERS[kind], plan, UsageError, "expected a LayerPlan, got")


@pytest.mark.parametrize("kind", [kind for kind, layer in LAYERS.items() if isinstance(layer, Norm)])
def test_a_frozen_norm_says_how_its_scale_can_be_trained(kind: str) -> None:
    words = "trains its shift only; train its bias alone, or give it statistics='batch'"
    refused(LAYERS[kind], LayerPlan(train=frozenset({"weight"})), RuleError, words)
    LAYERS[kind].apply(LayerPlan(train=frozenset({"weight"}), statistics="batch"))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "proxyless_mobile", "digits_irb"])
@pytest.mark.parametrize(
    "method",
    ["ft-all", "ft-last", "ft-bias", "ft-norm", "ft-blocks", "mobiletl", "mobiletl-exact", "mobiletl-recompute"],
)
def test_all_gradients_are_exact_but_those_of_mobiletl(name: str, method: str) -> None:
    """Whatever the activations: ReLU6, Hard-Swish and ReLU have exact rules of their own in the head too."""
    net = minitl.methods.get(method).apply(minitl.networks.get(name, num_classes=2, width=0.25))
    acts = [layer for layer in net.layers() if isinstance(layer, Activation)]
    approximate = [act.path for act in acts if act.plan.rule in act.op.approximate]
    assert bool(approximate) == (method == "mobiletl"), approximate
    assert net.exact == (not approximate)
