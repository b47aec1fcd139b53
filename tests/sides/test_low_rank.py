"""Low-rank adaptors: attached they change nothing; what they keep, against the weight itself; slope's late ones."""

from __future__ import annotations

import numpy as np
import pytest

from minitl import methods, networks
from minitl.accounting import measure, predict
from minitl.errors import MinitlError
from minitl.export.onnx import largest_difference, to_onnx
from minitl.layers import FROZEN, LayerPlan, Product
from minitl.methods.lora import ADAPTED, RANK
from minitl.methods.lora import rank as rank_of
from minitl.networks import Network
from minitl.ops.rules.sparse import largest
from minitl.sides import LowRank
from minitl.step import loss_and_gradients
from minitl.tape import Tape
from minitl.training.data import Dataset
from minitl.training.fit import fit
from minitl.training.optimizers import SGD

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.standard_normal((4, 24, 24, 3)), np.array([0, 1, 2, 1])


def digits(method: str, *, stirred: bool = False) -> Network:
    network = methods.get(method, 2).apply(networks.digits_irb(dtype="float64"))
    for adaptor in network.adaptors.values() if stirred else ():
        assert isinstance(adaptor, LowRank)
        up = adaptor.up.parameters["weight"].value
        up += 0.1 * np.random.default_rng(1).standard_normal(up.shape)
    return network


@pytest.mark.parametrize("method", ["lora", "lora-fa"])
def test_attached_they_change_no_number_and_their_gradients_are_slopes(method: str) -> None:
    plain = networks.digits_irb(dtype="float64").predict(IMAGES)
    assert np.array_equal(digits(method).predict(IMAGES), plain)
    network = digits(method, stirred=True)
    assert not np.array_equal(network.predict(IMAGES), plain)
    _, _, gradients = loss_and_gradients(network, IMAGES, LABELS)
    trained = network.trained_parameters()
    assert any(name.endswith("down.weight") for name in trained) == (method == "lora")
    assert sum(name.endswith("up.weight") for name in trained) == len(network.adaptors) == 5
    along = {name: np.random.default_rng(2).standard_normal(trained[name].shape) for name in trained}
    values, step = [], 1e-8
    for sign in (1, -2):
        for name in along:
            trained[name] += sign * step * along[name]
        values.append(loss_and_gradients(network, IMAGES, LABELS)[0])
    got = sum((gradients[name] * along[name]).sum() for name in along)
    assert got == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-5)


def test_merged_into_the_weight_the_output_is_the_same() -> None:
    network = digits("lora", stirred=True)
    expected, merged = network.predict(IMAGES), networks.digits_irb(dtype="float64")
    weights = {layer.path: layer.parameters["weight"].value for layer in merged.layers() if isinstance(layer, Product)}
    for path, adaptor in network.adaptors.items():
        assert isinstance(adaptor, LowRank)
        a, b = (factor.parameters["weight"].value[..., 0, 0] for factor in (adaptor.down, adaptor.up))
        weights[path] += (b @ a)[..., None, None]
    np.testing.assert_allclose(merged.predict(IMAGES), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("network", ["digits_irb", "mobilenet_v2"])
def test_lora_keeps_all_that_the_weights_would_and_the_factors_own(network: str) -> None:
    """Parameters are not memory: with A trained every x is kept, with A frozen r numbers a position in its place."""

    def weights(layer: object, blocks: int) -> LayerPlan:
        if isinstance(layer, Product) and rank_of(layer, blocks):
            return LayerPlan(train=frozenset({"weight"}))
        return LayerPlan(train=frozenset({"weight", "bias"})) if getattr(layer, "final", False) else FROZEN

    full = methods.Method("weights", "", weights, takes_blocks=True, blocks=2).apply(networks.get(network))
    whole = predict(full, batch=2, resolution=32)
    tuned = {name: methods.get(name, 2).apply(networks.get(network)) for name in ("lora", "lora-fa")}
    both, second = (predict(tuned[name], batch=2, resolution=32) for name in ("lora", "lora-fa"))
    narrow = sum(row.bytes for row in both.rows if row.role == "low_rank_up")
    wide = sum(row.bytes for row in whole.rows if row.role in ADAPTED and row.layer in tuned["lora"].adaptors)
    assert both.kept_bytes - whole.kept_bytes == narrow > 0
    assert both.kept_bytes - second.kept_bytes == wide > 4 * narrow
    assert {row.shape[3] for row in both.rows if row.role == "low_rank_up"} == {RANK}
    assert tuned["lora"].trained_count < full.trained_count


def test_slope_saves_no_byte_of_what_is_kept_and_its_adaptors_come_late() -> None:
    plain, network = (methods.get(name, 2).apply(networks.digits_irb()) for name in ("ft-blocks", "slope"))
    before = predict(plain, batch=2, resolution=24)
    early = predict(network, batch=2, resolution=24)
    assert early.kept_bytes == before.kept_bytes
    factors = sum(p.nbytes for p in network.parameters()) - sum(p.nbytes for p in plain.parameters())
    assert early.totals.frozen_parameter_bytes - before.totals.frozen_parameter_bytes == factors > 0, (
        "held, though idle"
    )
    assert not any(row.role.startswith("low_rank") for row in early.rows)
    pruned = [layer for layer in network.layers() if layer.plan.pattern]
    assert len(pruned) == 5
    assert plain.trained_count - network.trained_count == sum(p.parameters["weight"].value.size // 2 for p in pruned)
    network.begin_step(98, 100)
    assert predict(network, batch=2, resolution=24) == early
    network.begin_step(99, 100)
    late = predict(network, batch=2, resolution=24)
    narrow = sum(row.bytes for row in late.rows if row.role == "low_rank_up")
    assert late.kept_bytes - early.kept_bytes == narrow > 0
    measured = measure(network, batch=2, resolution=24)
    assert late.kept_bytes == measured.held_bytes == measured.traced_bytes


def test_training_slope_keeps_two_of_four_and_trains_its_adaptors_in_the_last_step() -> None:
    network = methods.get("slope", 2).apply(networks.digits_irb())
    masks = {layer.path: layer.parameters["weight"].value != 0 for layer in network.layers() if layer.plan.pattern}
    data = Dataset(IMAGES.astype("float32"), LABELS, classes=tuple("abcde"))
    fit(network, data, optimizer=SGD(lr=0.05, weight_decay=0.01), epochs=3, batch_size=2)
    for layer in network.layers():
        if layer.path in masks:
            weight = layer.parameters["weight"].value
            assert np.array_equal(weight != 0, masks[layer.path])
            assert np.array_equal(largest(weight, (2, 4), 1), masks[layer.path])
    ups = [adaptor.up.parameters["weight"].value for adaptor in network.adaptors.values()]  # type: ignore[attr-defined]
    assert all(up.any() for up in ups), "the last of six steps moved them"
    assert network.late is None


def test_a_method_without_adaptors_takes_them_away_and_the_same_method_keeps_them() -> None:
    network = digits("lora", stirred=True)
    before = network.state_dict()
    again = methods.get("lora", 2).apply(network).state_dict()
    assert all(np.array_equal(before[name], again[name]) for name in before)
    with pytest.raises(MinitlError, match="unknown backward rule"):
        methods.get("ft-all", rules={"expand": "nonsense"}).apply(network)
    assert network.state_dict().keys() == before.keys(), "a refused call changes nothing"
    plain = methods.get("ft-all").apply(network).state_dict()
    assert plain.keys() == networks.digits_irb().state_dict().keys()


def test_a_rank_that_does_not_fit_names_the_layer_and_what_fits() -> None:
    for role, rank, words in (
        ("expand", 17, r"features\.1\.conv\.0\.0: expected a rank from 1 to 16, got 17"),
        ("depthwise", 1, r"features\.1\..* \(depthwise_conv\): a low-rank adaptor stands beside a 1x1 convolution"),
    ):
        ranks = {role: rank}
        method = methods.Method("wide", "", lambda x, b: FROZEN, rank=lambda x, b, of=ranks: of.get(x.role, 0))
        with pytest.raises(MinitlError, match=words):
            method.apply(networks.digits_irb())


def test_the_gates_rule_folded_takes_no_adaptor() -> None:
    """Nothing falls back: an adaptor would read the gated map, which is never built."""
    method = methods.Method(
        "both", "", lambda layer, blocks: LayerPlan(rule="folded" if layer.role == "se_scale" else ""),
        rank=lambda layer, blocks: RANK if layer.role == "project" else 0,
    )  # fmt: skip
    network = method.apply(networks.digits_irb())
    with pytest.raises(MinitlError, match="nothing can read an input that the gate's rule folded never builds"):
        predict(network, batch=2, resolution=24)


@pytest.mark.parametrize("name", ["slope", "lora", "subspace", "mobiletl-recompute"])
def test_the_exported_network_is_that_of_evaluation(name: str) -> None:
    """Also with dense weights loaded after the method: what its pattern leaves out does not count."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = methods.get(name, 2).apply(networks.digits_irb())
    network.load_state_dict({key: array + 0.01 * (array.ndim > 1) for key, array in network.state_dict().items()})
    images = IMAGES.astype("float32")
    network(Tape(), images)
    found = largest_difference(to_onnx(network, 24, {}), network, images)
    assert found
    assert found[0] < 1e-5 * found[1]
