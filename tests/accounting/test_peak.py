"""The predicted peak of a step is that of NumPy's arrays: never below it, and a few kilobytes above at most."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import block, block_attrs, trained

import minitl
from minitl.accounting import measure
from minitl.networks import Model

CASES = [
    ("digits_irb", {"dropout": 0.2}, 8, 32),
    ("mobilenet_v3_small", {"width": 0.5}, 8, 112),
    ("mobilenet_v2", {"width": 0.25, "dtype": "float64"}, 3, 96),
]


LEAST, SHARE = 16 * 1024, 0.005  # what a prediction may be above the peak


def check(model: Model, n: int, resolution: int) -> int:
    got = measure(model, batch=n, resolution=resolution)
    above = got.predicted_peak_bytes - got.traced_peak_bytes
    assert 0 <= above <= max(LEAST, SHARE * got.traced_peak_bytes)
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
    assert check(model, n, resolution) > 20 * LEAST, "too small a step to tell anything"


@settings(max_examples=20, deadline=None)
@given(
    attrs=block_attrs(),
    method=st.sampled_from(["ft-all", "ft-bias", "ft-norm", "mobiletl", "mobiletl-exact", "mobiletl-recompute"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_random_blocks(attrs: dict[str, Any], method: str, dtype: str) -> None:
    wide = {name: 8 * attrs[name] for name in ("in_channels", "expanded_channels", "out_channels")}
    model = block(method, {**attrs, **wide}, dtype=dtype)
    check(model, 4, 33)
