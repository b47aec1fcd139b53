"""The predicted peak of a step is that of NumPy's arrays: never below it, and a few kilobytes above at most."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from models import block, block_attrs, tables, trained
from scripts import run_script

import minitl
from minitl.accounting import measure, predict
from minitl.kernels.threads import count, set_threads
from minitl.networks import Model

CASES = [
    ("digits_irb", {"dropout": 0.2}, 8, 32),
    ("mobilenet_v3_small", {"width": 0.5}, 8, 112),
    ("mobilenet_v2", {"width": 0.25, "dtype": "float64"}, 3, 96),
]


LEAST, SHARE = 16 * 1024, 0.005  # what a prediction may be above the peak


def check(model: Model, n: int, resolution: int, *, apply: bool = False) -> tuple[int, int]:
    """The traced peak, and how far the prediction is above it."""
    got = measure(model, batch=n, resolution=resolution, apply=apply)
    above = got.predicted_peak_bytes - got.traced_peak_bytes
    assert 0 <= above <= max(LEAST, SHARE * got.traced_peak_bytes)
    return got.traced_peak_bytes, above


METHODS = {
    "ft-all": None,
    "ft-last": None,
    "ft-bias": None,
    "ft-norm": None,
    "ft-blocks": 2,
    "mobiletl": 4,
    "mobiletl-exact": 4,
    "mobiletl-recompute": 4,
    "back-razor": None,
    "repnet-int8": None,
    "quantised": 4,
    "gradient-filter": 4,
    "subspace": 2,
    "subspace-fixed": 2,
    "sparse-update": 4,
    "slope": 4,
}
PAIRS = [  # every method with squeeze-and-excite and Hard-Swish; with ReLU6, float64 and dropout those that differ most
    (case, method)
    for case in CASES
    for method in METHODS
    if case[0] == "mobilenet_v3_small" or method in ("ft-all", "ft-norm", "mobiletl")
]


@pytest.mark.parametrize(("case", "method"), PAIRS, ids=[f"{case[0]}-{method}" for case, method in PAIRS])
def test_networks(case: tuple[str, dict[str, Any], int, int], method: str) -> None:
    network, options, n, resolution = case
    model = trained(minitl.networks.get(network, num_classes=10, **options), method, METHODS[method])
    whole, _ = check(model, n, resolution)
    assert whole > 20 * LEAST, "too small a step to tell anything"
    assert check(model, n, resolution, apply=True)[0] <= whole


def test_many_small_images() -> None:
    """Sums of a sample and channel weigh as much as maps do: op by op, the gate's gradient is the peak."""
    network = minitl.networks.mobilenet_v3_small(width=0.35, num_classes=10, dropout=0.0)
    check(trained(network, "back-razor"), 64, 16)


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


@settings(max_examples=settings().max_examples)
@given(
    network=tables(), method=st.sampled_from([*minitl.methods.METHODS]), blocks=st.integers(1, 4), n=st.integers(1, 9),
    resolution=st.integers(16, 64), apply=st.booleans(),
    options=st.sampled_from([{}, {}, {"checkpoint": True}, {"quantised": True}]), threads=st.integers(1, 3),
)  # fmt: skip
def test_random_networks(
    network: Any, method: str, blocks: int, n: int, resolution: int, apply: bool, options: Any, threads: int
) -> None:
    """Every method, option and batch, on any number of threads: each has scratch memory of its own.

    At length, two hundred new networks and how far above each prediction is:
    HYPOTHESIS_PROFILE=thorough pytest tests/accounting/test_peak.py -k random_networks --hypothesis-show-statistics
    """
    table, dtype = network
    net = minitl.networks.from_table(table, dtype=dtype)
    few = min(blocks, len(net.blocks)) if minitl.methods.METHODS[method].takes_blocks else None
    before = count()
    set_threads(threads)
    try:
        _, above = check(trained(net, method, few, **options), n, resolution, apply=apply)
        event(f"{above >> 10:2} KiB above")
    finally:
        set_threads(before)


@pytest.mark.parametrize("network", ["mobilenet_v2", "mobilenet_v3_small"])
def test_threads_that_share_an_image_have_rows_of_their_own(network: str) -> None:
    model, before, peaks = trained(minitl.networks.get(network, num_classes=10), "ft-last"), count(), list[int]()
    try:
        for threads in (1, 2, 8):
            set_threads(threads)
            peaks.append(check(model, 1, 224)[0])
    finally:
        set_threads(before)
    assert peaks[0] <= peaks[1] == peaks[2]  # two threads share an image, no more


@pytest.mark.parametrize(
    ("network", "method", "collected", "applied"),
    [
        ("mobilenet_v2", "ft-all", 8_946_728, 1_638_400),
        ("mobilenet_v3_large", "mobiletl", 16_061_640, 4_915_200),
        ("mobilenet_v3_small", "mobiletl", 5_543_784, 2_359_296),
    ],
)
def test_gradients_applied_as_they_come_are_one_at_a_time(
    network: str, method: str, collected: int, applied: int
) -> None:
    """By hand: all trained numbers, 4 bytes each; the largest is 1280 x 320, 1280 x 960, 1024 x 576."""
    model = trained(minitl.networks.get(network, num_classes=10), method)
    for apply, expected in ((False, collected), (True, applied)):
        assert predict(model, batch=8, resolution=224, apply=apply).totals.gradient_bytes == expected


HUGE = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import minitl
from minitl.accounting import predict
for method in ("ft-all", "mobiletl-exact"):
    net = minitl.methods.get(method).apply(minitl.networks.mobilenet_v3_small(num_classes=10))
    assert predict(net, batch=400_000, resolution=224).totals.peak_bytes > 10**11
print("predicted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_a_prediction_touches_no_array_of_map_size() -> None:
    assert run_script(HUGE).strip() == "predicted"
