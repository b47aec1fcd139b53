"""TinyTL's figures come out of the walk, to the digit, and a wrong rule would be noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from minitl.errors import UnknownNameError, ValueRangeError
from minitl.methods.side_places import fitted_kernel
from minitl.networks import digits_irb, proxyless_mobile
from minitl.reproduce import tinytl
from minitl.reproduce.lite_residual import Leaf, Map, leaves, lite_residual_leaves
from minitl.reproduce.result import Result
from minitl.reproduce.tinytl import COLUMNS, RULES, Memory, Rule, everything, results, training_memory

NETWORK = proxyless_mobile(102)
BYTES_AT_224 = {  # parameters, and the whole sum in MB
    "Last": (5_138_576, 30.829),
    "Norm+Last": (5_264_432, 192.421),
    "B": (5_201_504, 31.694),
    "L": (10_587_824, 37.081),
    "L+B": (10_633_520, 37.126),
    "Full": (18_986_360, 390.843),
}
WRONG: dict[str, tuple[str, Callable[[Rule], Rule]]] = {
    "a convolution keeps half": ("conv", lambda r: r._replace(saved=lambda leaf: 2 * leaf.x)),
    "no group at a time": ("conv", lambda r: r._replace(in_flight=lambda leaf: 4 * (leaf.x + leaf.y))),
    "a norm keeps half": ("norm", lambda r: r._replace(saved=lambda leaf: 2 * leaf.x)),
    "a norm has twice in flight": ("norm", lambda r: r._replace(in_flight=lambda leaf: 8 * leaf.x)),
    "a norm always keeps": ("norm", lambda r: r._replace(when="backward")),
    "two bits for ReLU6": ("relu6", lambda r: r._replace(saved=lambda leaf: leaf.x // 4)),
    "ReLU6 keeps its input": ("relu6", lambda r: r._replace(saved=r.in_flight)),
    "an activation has nothing in flight": ("relu6", lambda r: r._replace(in_flight=lambda leaf: 0)),
    "ReLU keeps its input": ("relu", lambda r: r._replace(saved=r.in_flight)),
}


def wrong(figures: list[Result]) -> list[str]:
    return [f"{r.item}, {r.quantity}: {r.computed}" for r in figures if r.verdict != "rounded"]


def test_every_published_figure_is_the_computed_one_rounded() -> None:
    figures = results()
    assert not wrong(figures)
    assert [r.unit for r in figures].count("bytes") == 6
    assert len({(r.item, r.quantity) for r in figures}) == len(figures) == 22


@pytest.mark.parametrize("column", COLUMNS)
def test_columns_to_the_byte(column: str) -> None:
    memory = training_memory(leaves(NETWORK, 224), COLUMNS[column])
    assert (memory.parameters, round(memory.mb, 3)) == BYTES_AT_224[column]


@pytest.mark.parametrize("mistake", WRONG)
def test_a_planted_mistake_changes_a_figure(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every mistake would: no figure depends on the linear layer's rule, the skips, or a smaller norm's."""
    kind, plant = WRONG[mistake]
    monkeypatch.setitem(RULES, kind, plant(RULES[kind]))
    assert wrong(results())


def test_an_unknown_kind_of_leaf_raises() -> None:
    known = leaves(NETWORK, 96)
    with pytest.raises(UnknownNameError, match="unknown kind of leaf 'softplus'"):
        training_memory([*known, Leaf("softplus", "backbone", 8, 8)], everything)


def test_a_network_with_a_layer_the_rule_does_not_know_raises() -> None:
    with pytest.raises(UnknownNameError, match="unknown kind of leaf 'scale'"):
        training_memory(leaves(digits_irb(), 32, lite_residual=False), everything)


def test_the_peak_by_hand() -> None:
    """Two leaves: what the first saves is there during the second, and so is what a skip holds."""
    linear = Leaf("linear", "backbone", 10, 6, parameters={"weight": 60, "bias": 6})
    relu = Leaf("relu", "backbone", 80, 80, skip=5)
    assert training_memory([linear, relu], everything, batch=2) == Memory(66 * 4, 2 * (4 * 10 + 4 * 80 + 4 * 5))
    assert training_memory([linear, relu], tinytl.only_last, batch=2) == Memory(66, 2 * (4 * 80 + 4 * 5))
    again = replace(linear, x=200, y=50)
    saved = 4 * 10 + 80 // 8
    assert training_memory([linear, relu, again], everything).activations == 8 * (saved + 4 * (200 + 50))


def test_a_lite_residual_module_saves_what_its_formula_says() -> None:
    """4 (A + 2 M + O) + M / 8 bytes: pooled input, two middle maps, output before the last norm; a bit for ReLU."""
    spec = NETWORK.blocks[6].spec
    found = list(lite_residual_leaves(spec, Map(spec.in_channels, 28), Map(spec.out_channels, 28), 5))
    pooled, middle, out = spec.in_channels * 14**2, spec.in_channels * 14**2, spec.out_channels * 14**2
    saved = sum(RULES[leaf.kind].saved(leaf) for leaf in found)
    assert saved == 4 * (pooled + 2 * middle + out) + middle // 8


def test_every_block_but_the_first_has_a_module_with_a_kernel_that_fits() -> None:
    found = leaves(NETWORK, 224)
    grouped = [leaf for leaf in found if leaf.part == "lite" and leaf.groups == 2]
    widths = [block.spec.in_channels for block in NETWORK.blocks[1:]]
    kernels = [leaf.parameters["weight"] * 2 // c**2 for leaf, c in zip(grouped, widths, strict=True)]
    assert kernels == [25] * 15 + [9] * 4
    assert [fitted_kernel(side) for side in (1, 2, 3, 4, 5, 64)] == [1, 1, 3, 3, 5, 5]


def test_without_modules_the_parameters_are_the_networks_own() -> None:
    bare = leaves(NETWORK, 224, lite_residual=False)
    own = sum(p.value.size for p in NETWORK.parameters() if not p.statistic)
    assert sum(sum(leaf.parameters.values()) for leaf in bare) == own
    assert training_memory(bare, everything).parameters == 4 * own


def test_a_map_that_cannot_be_halved_is_an_error() -> None:
    with pytest.raises(ValueRangeError, match="2 x 2"):
        leaves(NETWORK, 16)
