"""EF-Train's cycle model: the published scheduler's own totals, limits by hand, and what it must not answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl import devices
from minitl.devices.ef_train_cycles import Array, Conv, forward, grad_input, grad_weight
from minitl.devices.work import BOUND, FORWARD, GRAD_INPUT, GRAD_WEIGHT, KNOWN, UNKNOWN, Work

VGG = [
    (64, 3, 224), (64, 64, 224), (128, 64, 112), (128, 128, 112), (256, 128, 56), (256, 256, 56), (256, 256, 56),
    (512, 256, 28), (512, 512, 28), (512, 512, 28), (512, 512, 14), (512, 512, 14), (512, 512, 14),
]  # fmt: skip
# printed by the authors' scheduler for VGG-16's 38 passes, set to the 16 x 16 array of their board
SCHEDULER = {1: 194_875_424, 2: 386_161_384, 16: 3_064_164_824, 128: 24_488_192_344}
ARRAY = Array()


@pytest.mark.parametrize("batch", SCHEDULER)
def test_vgg_16_takes_the_cycles_of_the_published_scheduler(batch: int) -> None:
    convs = [Conv(o, i, side, side, 3, 1, batch) for o, i, side in VGG]
    passes: list[Any] = [f(conv, ARRAY) for f in (forward, grad_weight) for conv in convs]
    passes += [grad_input(conv, ARRAY) for conv in convs[1:]]
    assert len(passes) == 38
    assert sum(passes) == SCHEDULER[batch]


def test_one_tile_is_one_load_its_compute_and_one_store() -> None:
    """16 -> 16 channels, 3x3 on 8 x 8, one image: all fits one tile, nothing overlaps."""
    conv = Conv(16, 16, 8, 8, 3, 1, 1)
    load, compute, store = 400 + 4 * 10 * 10, 8 * 8 * 9, 4 * 8 * 8
    assert forward(conv, ARRAY) == load + compute + store + 400
    assert grad_input(conv, ARRAY) == load + compute + store + 400
    assert grad_weight(conv, ARRAY) == load + compute + 64 * 9


sizes = st.builds(
    Conv,
    outputs=st.integers(1, 600), inputs=st.integers(1, 600), rows=st.integers(1, 30), columns=st.integers(1, 30),
    kernel=st.sampled_from([1, 3]), stride=st.just(1), batch=st.integers(1, 8),
)  # fmt: skip


@given(conv=sizes)
def test_never_faster_than_the_array_and_slower_with_more_images(conv: Conv) -> None:
    for model in (forward, grad_input, grad_weight):
        cycles: Any = model(conv, ARRAY)
        more: Any = model(replace(conv, batch=conv.batch + 1), ARRAY)
        assert more > cycles >= conv.macs / 256


def test_a_row_that_does_not_fit_the_buffers_has_no_time() -> None:
    assert forward(Conv(16, 16, 1, 2016, 1, 1, 1), ARRAY) is not None
    assert forward(Conv(16, 16, 1, 2017, 1, 1, 1), ARRAY) is None


def work(op: str, part: str, *, kernel: int = 3, stride: int = 1, trains: bool = True) -> Work:
    weight = (16, 1 if op == "depthwise_conv" else 16, kernel, kernel)
    macs = 8 * 8 * 16 * weight[1] * kernel**2
    return Work("here", op, part, (1, 8 * stride, 8 * stride, 16), weight, (1, 8, 8, 16), stride, macs, 0, 0, trains)


@pytest.mark.parametrize(
    ("pass_", "kind", "reason"),
    [
        (work("conv", FORWARD), KNOWN, ""),
        (work("conv", GRAD_INPUT), KNOWN, ""),
        (work("conv", GRAD_WEIGHT), KNOWN, ""),
        (work("conv", FORWARD, stride=2), KNOWN, ""),
        (work("conv", GRAD_INPUT, stride=2), UNKNOWN, "stride 2"),
        (work("conv", FORWARD, kernel=5), UNKNOWN, "above 3x3"),
        (work("pointwise_conv", GRAD_WEIGHT, kernel=1, trains=False), UNKNOWN, "bias gradient alone"),
        (work("depthwise_conv", FORWARD), BOUND, "no published depthwise kernel"),
        (work("batch_norm", FORWARD), UNKNOWN, "no published cost of batch_norm"),
        (work("gated_conv", FORWARD), UNKNOWN, "no published cost of gated_conv"),
    ],
)
def test_what_is_not_published_is_not_answered(pass_: Work, kind: str, reason: str) -> None:
    said = devices.answer(devices.get("ef-train"), pass_)
    assert said.kind == kind
    assert reason in said.reason
    assert (said.seconds is None) == (kind == UNKNOWN)


def test_a_depthwise_pass_uses_the_diagonal_at_best() -> None:
    said = devices.answer(devices.get("ef-train"), work("depthwise_conv", FORWARD))
    assert said.seconds == pytest.approx(8 * 8 * 9 / 100e6)  # 16 channels at a time, one multiply-add each per cycle
