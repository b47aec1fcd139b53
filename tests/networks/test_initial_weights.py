"""Weights as they are drawn: He's normal distribution by fan-out in convolutions, 0.01 in linear layers.

A standard deviation estimated from n numbers is off by a factor of 1 +- 1 / sqrt(2 n), so five of these
are allowed; fan-in for fan-out would be off by a factor of 1.4 and more wherever it is told apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minitl
from minitl.arrays import Array
from minitl.blocks import ConvNorm, ConvSpec
from minitl.layers import Conv, Linear, Norm
from minitl.networks.network import build


def check_spread(values: Array, spread: float) -> None:
    margin = 5 / np.sqrt(values.size)
    assert abs(values.std() / spread - 1) <= margin / np.sqrt(2)
    assert abs(values.mean()) <= margin * spread
    within = np.mean(abs(values) < spread)  # 68.27 % of a normal distribution
    assert abs(within - 0.6827) <= margin / 2


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "depthwise", "fan_out"),
    [(16, 240, 1, False, 240), (240, 16, 1, False, 16), (3, 64, 3, False, 64 * 9), (512, 512, 5, True, 512 * 25)],
)
def test_convolutions(inputs: int, outputs: int, kernel: int, depthwise: bool, fan_out: int) -> None:
    """Torchvision's fan-out is that of `kaiming_normal_`: output channels times k k, groups or no groups."""
    spec = ConvSpec("depthwise" if depthwise else "expand", inputs, outputs, kernel, depthwise=depthwise)
    part = ConvNorm(spec, ("conv", "norm", "act"), build(0, "float64", eps=1e-3, momentum=0.1))
    check_spread(part.conv.parameters["weight"].value, np.sqrt(2 / fan_out))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "digits_irb"])
def test_whole_networks(name: str) -> None:
    net = minitl.networks.get(name, num_classes=50, dtype="float64")
    linears = 0
    for layer in net.layers():
        values = {n: p.value for n, p in layer.parameters.items()}
        if isinstance(layer, Conv):
            o, _, k, _ = values["weight"].shape
            check_spread(values["weight"], np.sqrt(2 / (o * k * k)))
            assert not values.get("bias", np.zeros(1)).any()
        elif isinstance(layer, Linear):
            check_spread(values["weight"], 0.01)
            assert not values["bias"].any()
            linears += 1
        elif isinstance(layer, Norm):
            assert {n: set(v.tolist()) for n, v in values.items()} == {
                "weight": {1}, "bias": {0}, "running_mean": {0}, "running_var": {1},
            }  # fmt: skip
    assert linears == (2 if "v3" in name else 1)


def test_layers_do_not_draw_the_same_numbers_and_seeds_differ() -> None:
    def weights(seed: Any) -> list[bytes]:
        net = minitl.networks.digits_irb(seed=seed)
        return [p.value.tobytes() for p in net.parameters() if p.value.ndim > 1]

    assert len(set(weights(0))) == len(weights(0))
    assert weights(0) == weights(np.int64(0)) != weights(1)
