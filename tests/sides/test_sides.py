"""Side modules: attached they change nothing; what they keep follows from shapes; their gradients are right."""

from __future__ import annotations

import numpy as np
import pytest
from models import needs_the_compiler

from minitl import methods, networks
from minitl.accounting import measure, predict
from minitl.errors import MinitlError
from minitl.methods.side_places import stage_starts
from minitl.methods.tinytl import is_side
from minitl.networks.network import Network
from minitl.reproduce.lite_residual import Map, lite_residual_leaves
from minitl.reproduce.tinytl import rule_of
from minitl.sides.layers import GroupNorm
from minitl.step import loss_and_gradients

WITH_SIDES = ("tinytl-l", "tinytl-lb", "rep-net", "additive-attention", "multiplicative-attention")
everywhere = pytest.mark.parametrize("method", WITH_SIDES)
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.standard_normal((4, 24, 24, 3)), np.array([0, 1, 2, 1])


def digits(method: str, *, stirred: bool = False) -> Network:
    """The demo's network with a method applied; `stirred`: no parameter of a side module is 0 any more."""
    network = methods.get(method).apply(networks.digits_irb(dtype="float64"))
    rng = np.random.default_rng(1)
    for layer in network.layers() if stirred else ():
        for parameter in layer.parameters.values() if is_side(layer.role) else ():
            parameter.value += 0.1 * rng.standard_normal(parameter.value.shape)
    return network


@everywhere
def test_attached_a_module_changes_no_bit_of_the_output(method: str) -> None:
    plain = networks.digits_irb(dtype="float64").predict(IMAGES)
    assert digits(method).predict(IMAGES).tobytes() == plain.tobytes()
    assert not np.array_equal(digits(method, stirred=True).predict(IMAGES), plain)


@everywhere
def test_gradients_are_slopes(method: str) -> None:
    """Along a random line through all trained parameters; also the lowest module's, through all blocks above."""
    network = digits(method, stirred=True)
    _, _, gradients = loss_and_gradients(network, IMAGES, LABELS)
    trained = network.trained_parameters()
    assert trained.keys() == gradients.keys()
    assert any(name.startswith("sides.") for name in trained)
    lowest = min(int(name.split(".")[1]) for name in trained if name.startswith("sides."))
    for names in (list(trained), [name for name in trained if name.startswith(f"sides.{lowest}.")]):
        along = {name: np.random.default_rng(2).standard_normal(trained[name].shape) for name in names}
        values, step = [], 1e-8  # small: few of the many activations meet a kink
        for sign in (1, -2):
            for name in names:
                trained[name] += sign * step * along[name]
            values.append(loss_and_gradients(network, IMAGES, LABELS)[0])
        for name in names:
            trained[name] += step * along[name]
        slope = (values[0] - values[1]) / (2 * step)
        got = sum((gradients[name] * along[name]).sum() for name in names)
        assert got == pytest.approx(slope, rel=2e-5, abs=5e-8)


def test_tinytl_lb_trains_the_biases_as_ft_bias_does() -> None:
    _, _, both = loss_and_gradients(digits("tinytl-lb"), IMAGES, LABELS)
    _, _, bias = loss_and_gradients(digits("ft-bias"), IMAGES, LABELS)
    assert {name for name in both if not name.startswith("sides.")} == bias.keys()
    assert all(np.array_equal(both[name], bias[name]) for name in bias)
    assert not any(name.endswith("project_norm.bias") for name in both if name.startswith("sides."))


@needs_the_compiler
@everywhere
def test_predicted_is_held_is_traced(method: str) -> None:
    network = digits(method)
    found, measured = predict(network, batch=2, resolution=24), measure(network, batch=2, resolution=24)
    assert found.kept_bytes == measured.held_bytes == measured.traced_bytes
    assert 0 <= measured.predicted_peak_bytes - measured.traced_peak_bytes <= 16 << 10


def test_a_product_keeps_both_factors_where_a_sum_keeps_nothing() -> None:
    for name, resolution in (("mobilenet_v2", 224), ("mobilenet_v3_large", 224), ("digits_irb", 24)):
        kept, places = {}, stage_starts(networks.get(name))
        for kind in ("additive", "multiplicative"):
            network = methods.get(f"{kind}-attention").apply(networks.get(name))
            rows = predict(network, batch=8, resolution=resolution).rows
            kept[kind] = sum(row.bytes for row in rows)
            joins = [row for row in rows if row.role == "side_join"]
            assert bool(joins) == (kind == "multiplicative")
        maps = {row.layer: 4 * np.prod(row.shape) for row in joins}
        assert len(maps) == len(places)
        assert sum(row.tensor == "b" for row in joins) == len(places) - 1  # below the lowest no gradient passes
        lowest = f"sides.{places[0]}.join"
        assert kept["multiplicative"] - kept["additive"] == 2 * sum(maps.values()) - maps[lowest]


def test_the_released_places_of_rep_net() -> None:
    for name, features in (
        ("mobilenet_v2", [2, 4, 7, 11, 14, 17]),
        ("mobilenet_v3_large", [2, 4, 7, 11, 13, 15]),
    ):
        network = methods.get("rep-net").apply(networks.get(name))
        assert [number + 1 for number in network.sides] == features
        assert [side.spec.reads_image for side in network.sides.values()] == [True] + 5 * [False]
    kernels = [side.spec.kernel for side in network.sides.values()]
    assert kernels == [5, 5, 5, 5, 5, 3]


@pytest.mark.parametrize("width", [0.01, 0.1, 0.35])
def test_a_narrow_network_has_the_same_places(width: float) -> None:
    """Its stages may not differ in channels; a module that reads the image must still meet a map of its own size."""
    for name in ("mobilenet_v2", "mobilenet_v3_large"):
        narrow = methods.get("rep-net").apply(networks.get(name, width=width))
        halving = [number for number, block in enumerate(narrow.blocks) if block.spec.stride > 1 and number]
        assert set(halving) <= set(narrow.sides) <= set(stage_starts(networks.get(name)))
        assert predict(narrow, batch=2, resolution=224).kept_bytes > 0


def test_running_tinytl_keeps_what_its_leaves_say_and_the_deviations() -> None:
    """The paper's count has no 1 / deviation; all else of a module is the same to the byte."""
    network = methods.get("tinytl-l").apply(networks.proxyless_mobile(102))
    rows = [row for row in predict(network, batch=8, resolution=224).rows if row.layer.startswith("sides.")]
    deviations = sum(row.bytes for row in rows if row.tensor == "inv_std")
    expected, side = 0, 112
    for number, block in enumerate(network.blocks):
        smaller = -(-side // block.spec.stride)
        if number:
            into, out = Map(block.spec.in_channels, side), Map(block.spec.out_channels, smaller)
            leaves = lite_residual_leaves(block.spec, into, out, network.sides[number].spec.kernel)
            expected += 8 * sum(rule_of(leaf).saved(leaf) for leaf in leaves)
        side = smaller
    assert sum(row.bytes for row in rows) - deviations == expected


def test_a_method_without_modules_takes_them_away_and_the_same_method_keeps_them() -> None:
    network = digits("rep-net", stirred=True)
    before = network.state_dict()
    again = methods.get("rep-net").apply(network).state_dict()
    assert all(np.array_equal(before[name], again[name]) for name in before)
    with pytest.raises(MinitlError, match="unknown activation"):
        methods.get("ft-all", rules={"gelu": "sign"}).apply(network)
    assert network.state_dict().keys() == before.keys(), "a refused call changes nothing"
    plain = methods.get("ft-all").apply(network).state_dict()
    assert plain.keys() == networks.digits_irb().state_dict().keys()


def test_modules_that_do_not_fit_name_the_layer() -> None:
    with pytest.raises(
        MinitlError, match=r"sides\.3\.norm: expected a multiple of 8 channels, for group norms, got 12"
    ):
        GroupNorm("sides.3.norm", "side_norm", 12, dtype="float32")
    network = methods.get("tinytl-l").apply(networks.mobilenet_v2())
    with pytest.raises(
        MinitlError, match=r"sides\.\d+\.pool \(avg_pool\): expected a map of at least 2 x 2, got 1 x 1"
    ):
        predict(network, batch=1, resolution=32)
    with pytest.raises(MinitlError, match="expected a block from 0 to 16, got 17"):
        network.attach({17: network.sides[1]})


def test_a_single_block_has_no_place_for_modules() -> None:
    with pytest.raises(MinitlError, match="its side modules need a whole network, not a single block"):
        methods.get("rep-net").apply(networks.irb())


def test_repnet_int8_keeps_codes_and_trains() -> None:
    network = methods.get("repnet-int8").apply(networks.digits_irb())
    found, measured = predict(network, batch=2, resolution=24), measure(network, batch=2, resolution=24)
    assert found.kept_bytes == measured.held_bytes == measured.traced_bytes
    codes = [row for row in found.rows if row.op == "conv_int" and row.tensor == "codes"]
    assert len(codes) == 2 * len(network.sides)
    assert all(row.bytes == np.prod(row.shape) and row.bits == 8 for row in codes)
    dense = predict(methods.get("rep-net").apply(networks.digits_irb()), batch=2, resolution=24)
    assert found.kept_bytes < dense.kept_bytes
    assert "sides.1.conv.weight" in network.trained_parameters()
    assert (
        networks.digits_irb().predict(IMAGES.astype("float32")).tobytes()
        == network.predict(IMAGES.astype("float32")).tobytes()
    )
