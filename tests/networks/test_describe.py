"""Printed networks, parameters and methods say what a reader wants to know, and no addresses or dumps of weights."""

from __future__ import annotations

import re

import pytest

import minitl
from minitl.networks.model import Model
from minitl.training.data import digits
from minitl.training.optimizers import SGD, Adam

BUILDERS = {
    "mobilenet_v3_small": lambda: minitl.networks.mobilenet_v3_small(num_classes=10, seed=0),
    "digits_irb": lambda: minitl.networks.digits_irb(num_classes=5, seed=0),
    "irb": lambda: minitl.networks.irb(in_channels=8, expanded_channels=16, out_channels=8, kernel=3, se_channels=4),
}


@pytest.mark.parametrize("method", ["none", "ft-all", "mobiletl", "ft-last"])
@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_is_printed_part_by_part(name: str, method: str) -> None:
    net: Model = BUILDERS[name]()
    if method != "none" and not (name == "irb" and method == "ft-last"):
        minitl.methods.get(method).apply(net)
    first, header, *lines = str(net).splitlines()
    assert repr(net) == f"<{first}>"
    assert header.split() == ["part", "what", "parameters", "trained"]
    counts = [tuple(int(n.replace(",", "")) for n in line.split()[-2:]) for line in lines]
    own = [p for p in net.parameters() if not p.statistic]
    assert sum(count for count, _ in counts) == sum(p.value.size for p in own)
    assert sum(trained for _, trained in counts) == sum(p.value.size for p in own if p.trained)
    assert sum(line.startswith("block") for line in lines) == len(net.blocks)
    assert f"{sum(trained for _, trained in counts):,} of" in first or "nothing of" in first
    assert "0x" not in str(net)
    assert max(map(len, str(net).splitlines())) <= 110


def test_what_stands_beside_a_block_is_printed_too() -> None:
    net = minitl.methods.get("tinytl-l").apply(minitl.networks.proxyless_mobile(num_classes=10, seed=0))
    lines = str(net).splitlines()
    assert any(line.startswith("  beside") for line in lines)
    counts = [tuple(int(n.replace(",", "")) for n in line.split()[-2:]) for line in lines[2:]]
    own = [p for p in net.parameters() if not p.statistic]
    assert sum(count for count, _ in counts) == sum(p.value.size for p in own)
    assert sum(trained for _, trained in counts) == sum(p.value.size for p in own if p.trained)


@pytest.mark.parametrize("method", ["sparse-update", "slope"])
def test_of_a_weight_that_trains_in_part_only_that_part_is_counted(method: str) -> None:
    net = minitl.methods.get(method).apply(BUILDERS["digits_irb"]())
    lines = str(net).splitlines()
    counts = [int(line.split()[-1].replace(",", "")) for line in lines[2:]]
    assert sum(counts) == net.trained_count < sum(array.size for array in net.trained_parameters().values())
    assert f"{method} 5 trains {net.trained_count:,} of" in lines[0]


def test_the_parts_of_a_network_have_their_shapes() -> None:
    lines = str(BUILDERS["mobilenet_v3_small"]()).splitlines()
    said = {line[:10].strip(): re.split(r"\s{2,}", line[11:])[0] for line in lines[2:]}
    assert said["stem"] == "conv 3x3 stride 2 3 -> 16, hard_swish"
    assert said["block 1"] == "16 -> 16, 3x3 stride 2, relu, SE 8"
    assert said["block 5"] == "40 -> 240 -> 40, 5x5, hard_swish, SE 64, residual"
    assert said["head"] == "conv 1x1 96 -> 576, hard_swish"
    assert said["classifier"] == "linear 576 -> 1024, hard_swish, dropout 0.2, linear 1024 -> 10"


def test_a_parameter_says_shape_dtype_and_whether_it_trains() -> None:
    net = minitl.methods.get("mobiletl", 1, quantised=True).apply(BUILDERS["digits_irb"]())
    said = {p.name: repr(p) for p in net.parameters()}
    weight = next(p for p in net.parameters() if p.scale is not None)
    assert f"{weight.value.shape} float32, frozen, held as int8 with {len(weight.value)} scales" in said[weight.name]
    assert any(", trained, " in text for text in said.values())
    assert all(", statistic, " in text for name, text in said.items() if "running" in name)
    assert all(len(text) < 140 and "array" not in text for text in said.values())


def test_layers_and_blocks_say_what_they_are() -> None:
    net = minitl.methods.get("mobiletl", 5).apply(BUILDERS["mobilenet_v3_small"]())
    said = {layer.path: repr(layer) for layer in net.layers()}
    assert said["features.0.0"] == "<Conv features.0.0, stem>"
    assert said["features.11.block.0.1"] == "<Norm features.11.block.0.1, expand_norm, trains bias>"
    assert said["features.11.block.0.2"] == "<Activation features.11.block.0.2, expand_act, rule sign>"
    assert said["classifier.3"] == "<Linear classifier.3, classifier, trains bias and weight>"
    first = "<InvertedResidual of 11 layers, features.1.block.0.0 to features.1.block.2.1>"
    assert repr(net.blocks[0]) == first
    assert not any("0x" in text for text in [*said.values(), *map(repr, net.blocks)])


def test_what_one_gets_and_gives_in_a_notebook_is_not_dumped() -> None:
    net = minitl.methods.get("mobiletl", 2).apply(BUILDERS["digits_irb"]())
    ledger = minitl.accounting.predict(net, batch=4, resolution=24)
    told = f"{len(ledger.rows)} rows, {ledger.kept_bytes:,} bytes kept for backward"
    assert repr(ledger) == f"<Ledger of {told}; print it for its table>"
    assert repr(digits((3, 8), size=8)) == "<Dataset of 357 images 8x8x3 float32, 2 classes>"
    assert repr(SGD(0.1)).startswith("<SGD decay_vectors=True, lr=0.1, weight_decay=0")
    assert "state" not in repr(Adam(0.1))


def test_a_method_says_its_options() -> None:
    method = minitl.methods.get("mobiletl", 3, quantised=True, rules={"hard_swish": "few2"})
    assert repr(method).startswith("<Method mobiletl, 3 blocks, quantised, hard_swish=few2: the top blocks")
    assert "0x" not in repr(method)
