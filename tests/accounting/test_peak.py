"""The predicted peak of a step is the traced one, but for what is left out of it on purpose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from models import block, block_attrs, trained

import minitl
from minitl.accounting import measure
from minitl.networks import Model

CASES = [
    ("digits_irb", {"dropout": 0.2}, 8, 32),
    ("mobilenet_v3_small", {"width": 0.5}, 8, 112),
    ("mobilenet_v2", {"width": 0.25, "dtype": "float64"}, 3, 96),
]


def slack(model: Model) -> int:
    """What the prediction leaves out.

    Python's objects: for each layer a record, its holdings, dictionaries, shapes and array headers,
    about 1.7 KB on a 64-bit machine, and in a fused step three closures, about 0.4 KB each. Vectors
    of one number a channel: an op uses at most 40 of them at a time, in float64.
    """
    widest = max(p.value.shape[0] for p in model.parameters())
    return 4096 * sum(1 for _ in model.layers()) + 40 * 8 * widest + 16 * 1024


def check(model: Model, n: int, resolution: int) -> int:
    got = measure(model, batch=n, resolution=resolution)
    assert abs(got.traced_peak_bytes - got.predicted_peak_bytes) <= slack(model)
    return got.traced_peak_bytes


@pytest.mark.parametrize(("network", "options", "n", "resolution"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize(
    ("method", "blocks"),
    [
        ("ft-all", None),
        ("ft-last", None),
        ("ft-bias", None),
        ("ft-norm", None),
        ("ft-blocks", 2),
        ("mobiletl", 4),
        ("mobiletl-exact", 4),
        ("mobiletl-recompute", 4),
    ],
)
def test_networks(network: str, options: dict[str, Any], n: int, resolution: int, method: str, blocks: int) -> None:
    model = trained(minitl.networks.get(network, num_classes=10, **options), method, blocks)
    traced = check(model, n, resolution)
    assert slack(model) < 0.2 * traced, "too small a step to tell anything"


@settings(max_examples=4)
@given(attrs=block_attrs())
def test_blocks_on_maps_large_enough_to_tell(attrs: dict[str, Any]) -> None:
    wide = {name: 8 * attrs[name] for name in ("in_channels", "expanded_channels", "out_channels")}
    model = block("ft-blocks", {**attrs, **wide}, dtype="float32")
    traced = check(model, 4, 33)
    assert traced > 2 * slack(model)
