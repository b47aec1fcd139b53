"""Whole blocks and networks: gradients are the slope of the loss, by central differences in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import batch, block, block_attrs, block_inputs, noise, settle, stir, trained

import minitl
from minitl.arrays import Array
from minitl.layers import Norm
from minitl.ops import Op
from minitl.saved import Saved
from minitl.tape import Tape

KINKS = {"relu": (0.0,), "relu6": (0.0, 6.0), "hard_swish": (-3.0, 3.0), "hard_sigmoid": (-3.0, 3.0)}
STEPS = [2.0**-e for e in range(10, 34, 2)]  # large maps have a kink near by: they begin at the fourth
u = 2.0**-53


class Regions(Tape):
    """Runs op by op, and notes on which side of its kinks each input of an activation is."""

    def __init__(self) -> None:
        super().__init__(fused=False)
        self.sides: list[bytes] = []

    def _forward(self, op: Op, arrays: Any, *rest: Any) -> tuple[Array, Saved]:
        if op.name in KINKS:
            self.sides.append(np.digitize(arrays[0], KINKS[op.name]).astype(np.uint8).tobytes())
        return super()._forward(op, arrays, *rest)


Loss = Callable[[Tape], float]


def slope(loss: Loss, move: Callable[[float], None], steps: list[float]) -> tuple[float, float]:
    """The derivative of `loss` along `move`, and a bound on its error; the largest step without a kink in it.

    With d(h) the central difference, truncation is h^2 c + O(h^4): Richardson's extrapolation
    d(h) + (d(h) - d(2h)) / 3 removes the first term, and |d(h) - d(2h)|, three times that term, bounds
    what is left. Rounding: the loss is off by some thousand u of its size (a sum over 40 layers of sums
    of 10 to 100 terms), the difference by that over h.
    """
    for h in steps:
        values, sides = [], set()
        for at in (-2 * h, -h, h, 2 * h):
            tape = Regions()
            move(at)
            values.append(loss(tape))
            move(-at)
            sides.add(tuple(tape.sides))
        if len(sides) == 1:
            near, far = (values[2] - values[1]) / (2 * h), (values[3] - values[0]) / (4 * h)
            return near + (near - far) / 3, abs(near - far) + 1024 * u * max(map(abs, values)) / h
    raise AssertionError("a kink at every step")


def check(
    model: Any, loss: Loss, arrays: dict[str, Array], gradients: dict[str, Array], seed: int, first: int = 0
) -> None:
    """Along a random line in each array by itself, so that a small gradient is not lost beside large ones.

    Running statistics are not part of what is differentiated, so they are put back.
    """
    rng = np.random.default_rng(seed)
    state = {p.name: p.value.copy() for p in model.parameters() if p.statistic}
    total = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
    assert gradients.keys() == arrays.keys()
    sharp = 0
    for name, array in arrays.items():
        start, direction = array.copy(), rng.standard_normal(array.shape)
        direction /= np.linalg.norm(direction)

        def move(by: float, array: Array = array, start: Array = start, line: Array = direction) -> None:
            array[...] = start + by * line
            for p in model.parameters():
                if p.statistic:
                    p.value[...] = state[p.name]

        numeric, error = slope(loss, move, STEPS[first:])
        move(0.0)
        analytic = float((gradients[name] * direction).sum())
        assert abs(numeric - analytic) <= error + 1e-12 * total, f"{name}: {analytic} by backward, {numeric} by steps"
        sharp += error < 1e-4 * total
    assert sharp > len(arrays) / 2, "the steps are too small to tell a wrong gradient"


def check_block(method: str, attrs: dict[str, Any], shape: tuple[int, int, int], seed: int) -> None:
    model = block(method, {**attrs, "input_grad": True}, seed=seed)
    x = noise((*shape, attrs["in_channels"]), seed)
    tape = Tape()
    y = model(tape, x)
    gy = noise(y.shape, seed + 1)

    def loss(tape: Tape) -> float:
        return math.fsum((model(tape, x).value * gy).ravel())

    state = {p.name: p.value.copy() for p in model.parameters() if p.statistic}
    gradients = tape.backward(y, gy)
    (gradients["x"],) = tape.input_gradients.values()
    for p in model.parameters():
        if p.statistic:
            p.value[...] = state[p.name]
    check(model, loss, {**model.trained_parameters(), "x": x}, gradients, seed)


@given(attrs=block_attrs(), shape=block_inputs(), seed=st.integers(0, 2**16))
def test_blocks_trained_as_usual(attrs: dict[str, Any], shape: tuple[int, int, int], seed: int) -> None:
    check_block("ft-blocks", attrs, shape, seed)


@pytest.mark.parametrize("method", ["mobiletl-exact", "mobiletl-recompute"])
@given(attrs=block_attrs(), shape=block_inputs(), seed=st.integers(0, 2**16))
def test_mobiletl_exact(method: str, attrs: dict[str, Any], shape: tuple[int, int, int], seed: int) -> None:
    check_block(method, attrs, shape, seed)


@given(attrs=block_attrs(activations=("relu",)), shape=block_inputs(), seed=st.integers(0, 2**16))
def test_mobiletl_is_exact_with_relu(attrs: dict[str, Any], shape: tuple[int, int, int], seed: int) -> None:
    """Shift-only norms have frozen statistics in the forward pass too, and ReLU's one bit is its slope."""
    check_block("mobiletl", attrs, shape, seed)


NETWORKS = {
    "digits_irb": {"width": 0.5},
    "mobilenet_v3_small": {"width": 0.25, "dropout": 0.2},
    "mobilenet_v2": {"width": 0.1, "dropout": 0.2},
}


@pytest.mark.parametrize("method", ["ft-all", "ft-last", "ft-bias", "ft-norm", "ft-blocks"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, method: str) -> None:
    """Some arrays of each, among them the lowest and the highest. Dropout drops the same each time."""
    model = stir(minitl.networks.get(name, num_classes=5, dtype="float64", **NETWORKS[name]))
    images, labels = batch(model, n=4, resolution=11 if name == "digits_irb" else 33, classes=5)
    trained(settle(model, images), method)
    state = model.state_dict()

    def loss(tape: Tape) -> float:
        return float(model.loss(tape, model(tape, images), labels).value)

    tape = Tape()
    gradients = tape.backward(model.loss(tape, model(tape, images), labels))
    model.load_state_dict(state)
    arrays = model.trained_parameters()
    assert gradients.keys() == arrays.keys()
    chosen = list(arrays)[:: max(1, len(arrays) // 4)] + list(arrays)[-1:]
    check(model, loss, {n: arrays[n] for n in chosen}, {n: gradients[n] for n in chosen}, 0, first=3)


def test_a_wrong_gradient_is_caught() -> None:
    """The sign rule of Hard-Swish is not its slope."""
    attrs = {"in_channels": 3, "expanded_channels": 6, "out_channels": 3, "activation": "hard_swish", "se_channels": 0}
    check_block("ft-blocks", attrs, (2, 4, 4), 0)
    with pytest.raises(AssertionError, match="by backward"):
        check_block("mobiletl", attrs, (2, 4, 4), 0)


def test_norms_of_the_blocks_are_not_degenerate() -> None:
    """The statistics of the blocks above are no zeros and ones, or a frozen norm would be hard to tell from none."""
    model = block("mobiletl", {})
    for layer in model.layers():
        if isinstance(layer, Norm):
            for p in layer.parameters.values():
                assert float(p.value.std()) > 0.05
