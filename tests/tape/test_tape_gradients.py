"""How gradients flow: they add up where a value is used twice, and stop where nothing below is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from models import batch, trained

import minitl
from minitl import ops
from minitl.arrays import Array
from minitl.layers import FROZEN, LayerPlan, Linear
from minitl.ops import Op
from minitl.ops.op import Gradients
from minitl.parameters import Parameter
from minitl.records import Var
from minitl.tape import Tape

RNG = np.random.default_rng(0)
GY = RNG.standard_normal((2, 3, 3, 4))
W, V = (RNG.standard_normal((4, 4, 1, 1)) for _ in "ab")


class From(Tape):
    """Starts backward from a gradient of one's choice."""

    def __init__(self, gy: Array) -> None:
        super().__init__()
        self.gy = gy

    def _ones_like(self, loss: Array) -> Array:
        assert loss.shape == self.gy.shape
        return self.gy


def conv(tape: Tape, x: Var, weight: Array, name: str) -> Var:
    return tape.run(ops.pointwise_conv, x, Parameter(name, weight, trained=True), layer=name, role="expand")


def add(tape: Tape, a: Var, b: Var) -> Var:
    return tape.run(ops.add, a, b, layer="add", role="add")


def double(tape: Tape, x: Var) -> Var:
    return add(tape, x, x)


def product(gy: Array, x: Array) -> Array:
    return np.einsum("nhwo,nhwi->oi", gy, x)[..., None, None]


def times(x: Array, w: Array) -> Array:
    return np.einsum("nhwi,oi->nhwo", x, w[..., 0, 0])


def test_two_losses_are_added_and_weighed() -> None:
    """The loss of each head of one network, the second counting a quarter."""
    net = trained(minitl.networks.digits_irb(num_classes=3, dtype="float64"), "ft-all")
    images, labels = batch(net, classes=3)
    tape = Tape()
    logits = net(tape, images)
    first, second = (minitl.cross_entropy(tape, logits, own) for own in (labels, labels[::-1]))
    quarter = tape.run(ops.multiply, second, Var(np.array(0.25)), layer="weighed", role="loss")
    got = tape.backward(tape.run(ops.add, first, quarter, layer="sum", role="loss"))
    alone = [gradients_of(net, images, own) for own in (labels, labels[::-1])]
    for name, gradient in got.items():
        np.testing.assert_allclose(gradient, alone[0][name] + alone[1][name] / 4, rtol=1e-9, atol=1e-12)


def gradients_of(net: Any, images: Array, labels: Array) -> dict[str, Array]:
    tape = Tape()
    return tape.backward(minitl.cross_entropy(tape, net(tape, images), labels))


X = RNG.standard_normal((2, 3, 3, 4))
U = times(X, W)  # the value that is used several times


def _diamond(tape: Tape, u: Var) -> Var:
    return add(tape, conv(tape, u, V, "v"), u)


def _diamond_mirrored(tape: Tape, u: Var) -> Var:
    return add(tape, u, conv(tape, u, V, "v"))


def _chain(tape: Tape, u: Var) -> Var:
    return add(tape, add(tape, add(tape, conv(tape, u, V, "v"), u), u), conv(tape, u, V, "w"))


def _nested(tape: Tape, u: Var) -> Var:
    both = add(tape, u, conv(tape, u, V, "v"))
    return add(tape, both, add(tape, u, both))


CASES = {
    # what is built on u, and the gradient of u by hand
    "one": (lambda tape, u: conv(tape, u, V, "v"), times(GY, V.transpose(1, 0, 2, 3))),
    "twice the same": (double, 2 * GY),
    "four times": (lambda tape, u: double(tape, double(tape, u)), 4 * GY),
    "residual": (_diamond, GY + times(GY, V.transpose(1, 0, 2, 3))),
    "residual, mirrored": (_diamond_mirrored, GY + times(GY, V.transpose(1, 0, 2, 3))),
    "several residuals": (_chain, 2 * GY + 2 * times(GY, V.transpose(1, 0, 2, 3))),
    "nested": (_nested, 3 * GY + 2 * times(GY, V.transpose(1, 0, 2, 3))),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_add_up(name: str) -> None:
    """Weights and inputs are of size 1 and sums have at most 18 * 4 terms: 1e-12 is 50 times their rounding."""
    make, expected = CASES[name]
    before = GY.tobytes()
    tape = From(GY)
    got = tape.backward(make(tape, conv(tape, Var(X), W, "u")))
    assert np.allclose(got["u"], product(expected, X), rtol=0, atol=1e-12)
    assert GY.tobytes() == before, "backward wrote the gradient it was handed"


def test_a_gradient_that_two_values_share_is_not_written() -> None:
    """Add hands the same array to both inputs; what one of them adds to it must not reach the other."""
    tape = From(GY)
    left, right = conv(tape, Var(X), W, "left"), conv(tape, Var(X), W, "right")
    got = tape.backward(add(tape, conv(tape, left, V, "v"), add(tape, add(tape, left, right), left)))
    assert np.allclose(got["right"], product(GY, X), rtol=0, atol=1e-12)
    assert np.allclose(got["left"], product(2 * GY + times(GY, V.transpose(1, 0, 2, 3)), X), rtol=0, atol=1e-12)
    assert np.allclose(got["v"], product(GY, U), rtol=0, atol=1e-12)


def test_both_ways_through_squeeze_and_excite_add_up() -> None:
    """y = s(mean(u)) u, s = hard_sigmoid inside its linear part: gu = s gy + (sum over h, w of gy u) / 6 / (H W)."""
    tape = From(GY)
    u = conv(tape, Var(X), W / 10, "u")
    mean = tape.run(ops.global_avg_pool, u, layer="pool", role="pool", attrs={"keepdims": True})
    gate = tape.run(ops.hard_sigmoid, mean, layer="gate", role="se_gate")
    got = tape.backward(tape.run(ops.scale, u, gate, layer="scale", role="se_scale"))
    value = U / 10
    s = value.mean(axis=(1, 2), keepdims=True) / 6 + 0.5
    gu = s * GY + (GY * value).sum(axis=(1, 2), keepdims=True) / 6 / 9
    assert np.allclose(got["u"], product(gu, X), rtol=0, atol=1e-12)


def test_a_parameter_used_twice_gets_the_sum() -> None:
    weight = Parameter("w", W, trained=True)
    tape = From(GY)
    u = tape.run(ops.pointwise_conv, Var(X), weight, layer="first", role="expand")
    got = tape.backward(tape.run(ops.pointwise_conv, u, weight, layer="second", role="expand"))
    expected = product(GY, U) + product(times(GY, W.transpose(1, 0, 2, 3)), X)
    assert np.allclose(got["w"], expected, rtol=0, atol=1e-12)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, tuple[bool, ...], Gradients]]:
    """All calls of backward from now on: layer, op, needs, gradients."""
    calls: list[tuple[str, str, tuple[bool, ...], Gradients]] = []
    original = Tape._backward

    def spy(self: Tape, record: Any, gy: Array) -> Gradients:
        results = original(self, record, gy)
        calls.append((record.layer, record.op.name, record.needs, results))
        return results

    monkeypatch.setattr(Tape, "_backward", spy)
    return calls


@pytest.mark.parametrize(
    ("method", "blocks", "lowest"),
    [
        ("ft-all", None, "features.0.0"),
        ("ft-bias", None, "features.0.1"),
        ("ft-norm", None, "features.0.1"),
        ("ft-blocks", 1, "features.11.block.0.0"),
        ("ft-blocks", 4, "features.8.block.0.0"),
        ("mobiletl", 11, "features.1.block.0.0"),
        ("ft-last", None, "classifier.3"),
    ],
)
def test_no_gradient_goes_below_the_lowest_trained_layer(
    method: str, blocks: int | None, lowest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(minitl.networks.mobilenet_v3_small(num_classes=10, width=0.25), method, blocks)
    images, labels = batch(model)
    calls = spied(monkeypatch)
    tape = Tape(fused=False)
    tape.backward(model.loss(tape, model(tape, images), labels))
    order = [layer.path for layer in model.layers()] + ["loss"]
    assert min(order.index(layer) for layer, *_ in calls) == order.index(lowest)
    layer, _, needs, results = calls[-1]
    assert layer == lowest
    assert needs[0] is False
    assert results[0] is None
    assert all(needs[0] for _, _, needs, _ in calls[:-1]), "a gradient was asked for and not passed on"


@pytest.mark.parametrize("names", [("weight",), ("bias",), ("weight", "bias"), ()])
def test_gradients_are_those_of_the_trained_parameters(names: tuple[str, ...]) -> None:
    layer = Linear("fc", 4, 3, rng=np.random.default_rng(0), dtype="float64")
    layer.apply(LayerPlan(train=frozenset(names)) if names else FROZEN)
    tape = From(RNG.standard_normal((2, 3)))
    y = layer(tape, Var(RNG.standard_normal((2, 4))))
    if not names:
        assert not y.needs_grad
        return
    assert set(tape.backward(y)) == {f"fc.{name}" for name in names}


def test_an_op_that_writes_its_gy_is_caught_by_the_sums() -> None:
    """The check above fails for an op with that fault."""

    def backward(saved: Any, gy: Array, **call: Any) -> Gradients:
        gy *= 2
        return gy, gy

    faulty: Op = replace(ops.add, functions=replace(ops.add.functions, backward=backward))
    tape = From(GY.copy())
    u = conv(tape, Var(X), W, "u")
    got = tape.backward(tape.run(faulty, u, u, layer="add", role="add"))
    assert not np.allclose(got["u"], product(2 * GY, X), rtol=0, atol=1e-12)
