"""Figures of the systems around MobileTL: which come out, retyped from their sources, and planted mistakes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minitl.methods import side_places
from minitl.networks import mobilenet_v2
from minitl.reproduce import (
    ef_train,
    fused_update,
    gradient_filter,
    kept_inputs,
    rep_net,
    results,
    slope,
    sparse_update,
    subspace,
    table1,
)
from minitl.reproduce.convolutions import Convolution, of_network, of_resnet
from minitl.reproduce.result import CANDIDATE, PUBLISHED, REDERIVED

MODULES = (gradient_filter, sparse_update, subspace, slope, rep_net, kept_inputs, fused_update, ef_train)
ROWS = [row for module in MODULES for row in module.results()]
DIFFER = {
    "kept, MobileNetV2, all",
    "lost to the second pruning, 2:8",
    "VGG-16 convolutions, batch 1",
    "VGG-16 convolutions, batch 128",
}


def test_which_figures_come_out() -> None:
    told = {row.quantity for row in ROWS if row.kind == PUBLISHED and row.verdict == "differs"}
    assert told == DIFFER
    assert [row for row in ROWS if row.kind == REDERIVED and row.verdict != "rounded"] == []
    assert len({(row.item, row.quantity, row.kind) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("item", "kind", "count"),
    [
        ("gradient-filter", PUBLISHED, 15), ("gradient-filter", CANDIDATE, 11), ("sparse-update", PUBLISHED, 15),
        ("sparse-update", REDERIVED, 15), ("subspace", PUBLISHED, 2), ("slope", PUBLISHED, 5),
        ("rep-net", REDERIVED, 8), ("ef-train", PUBLISHED, 2), ("ef-train", REDERIVED, 8), ("slope", REDERIVED, 2),
        ("kept-inputs", REDERIVED, 5), ("fused-update", REDERIVED, 6),
    ],
)  # fmt: skip
def test_how_many_figures_there_are(item: str, kind: str, count: int) -> None:
    assert sum((row.item, row.kind) == (item, kind) for row in ROWS) == count


def test_the_fitted_flops_are_within_what_is_said() -> None:
    for row in ROWS:
        if row.kind == CANDIDATE:
            assert row.verdict in ("rounded", "within 0.2 %")
            assert abs(row.difference) <= 0.002 * row.printed, row.quantity


def test_what_differs_says_why() -> None:
    for row in [*ROWS, *table1.results(), *results.results()]:
        assert bool(row.note) == (row.verdict == "differs"), row.quantity


def test_a_fit_is_no_nearer_than_it_says() -> None:
    fit = next(row for row in ROWS if row.within)
    assert replace(fit, computed=1.0021 * fit.printed).verdict == "differs"
    assert replace(fit, computed=1.0019 * fit.printed).verdict == "within 0.2 %"
    assert replace(fit, computed=1.0019 * fit.printed, within=0.0).verdict == "differs"


def test_back_razors_threshold_keeps_all_where_more_is_zero_than_it_prunes() -> None:
    assert kept_inputs.at_least_half(np.array([0.0, 0, 0, 1])) == 4
    assert kept_inputs.at_least_half(np.array([0.0, -2, 3, 1])) == 2


def test_computed_figures_to_the_unit() -> None:
    computed = {row.quantity: row.computed for row in ROWS if row.kind == PUBLISHED}
    assert computed["kept, MobileNetV2, last 2"] == 4 * (960 + 320) * 49 / 1024  # projection and final 1x1 read 7 x 7
    assert computed["kept, MobileNetV2, last 2, patches of 2"] == 4 * (960 + 320) * 16 / 1024
    assert computed["kept, uncompressed, MobileNetV2, last 2"] == 128 * 4 * (960 + 320) * 49 / 2**20
    assert computed["training memory, 2:4"] == 100 * 262 / 384
    assert computed["inference memory, 2:4"] == 100 * 35 / 64


def test_mobilenets_and_resnets_have_the_convolutions_they_are_known_for() -> None:
    v2 = of_network(mobilenet_v2(), 224)
    assert len(v2) == 52
    assert (v2[0], v2[-1]) == (Convolution(3, 224, 32, 112, 3), Convolution(320, 7, 1280, 7))
    assert sum(c.values_out * c.inputs // c.groups * c.kernel**2 for c in v2) == 299_494_272  # MACs, classifier apart
    r18 = of_resnet((2, 2, 2, 2), 224)
    assert len(r18) == 20
    assert sum(c.values_out * c.inputs * c.kernel**2 for c in r18) == 1_813_561_344


def test_one_channel_more_or_a_bias_less_changes_a_scheme() -> None:
    shapes = sparse_update.convolutions("mbv2")
    for scheme in sparse_update.SCHEMES["mbv2"]:
        exact = sparse_update.memory_bytes(shapes, scheme)
        assert exact == int(scheme.exact)
        fewer = replace_biases(scheme, scheme.biases - 1)
        assert sparse_update.memory_bytes(shapes, fewer) < exact
        number, share = next((n, s) for n, s in scheme.weights.items() if s < 1) if scheme.kib != "138" else (27, 1.0)
        channel = 1 / shapes[number].inputs
        weights = {**scheme.weights, number: share - channel}
        assert sparse_update.memory_bytes(shapes, scheme._replace(weights=weights)) < exact


def replace_biases(scheme: sparse_update.Scheme, biases: int) -> sparse_update.Scheme:
    return scheme._replace(biases=biases)


def test_planted_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_places, "GROUPS", 4)
    assert {row.verdict for row in rep_net.results() if "parameters" in row.quantity} == {"differs"}
    monkeypatch.setattr(ef_train, "ARRAY", replace(ef_train.ARRAY, start=401))
    assert {row.verdict for row in ef_train.results() if "passes" in row.quantity} == {"differs"}
    monkeypatch.setattr(sparse_update, "BITS", 7)
    assert "rounded" not in {row.verdict for row in sparse_update.results()}
