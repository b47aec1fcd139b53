"""Optimizers by their formulas, written out again in NumPy; and gradients applied one by one, to the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minitl.arrays import Array
from minitl.errors import DtypeError, MinitlError, ShapeError, UsageError, ValueRangeError
from minitl.parameters import Parameter
from minitl.training.optimizers import SGD, Adam, AdamW, Optimizer

SHAPES = {"conv": (3, 2, 5, 5), "norm": (7,), "linear": (4, 5)}
STEPS = 4


def sgd(lr: float, momentum: float, decay: float, nesterov: bool) -> Callable[[Array, list[Array]], Array]:
    def train(p: Array, gradients: list[Array]) -> Array:
        velocity = np.zeros_like(p)
        for g in gradients:
            h = g + decay * p
            velocity = momentum * velocity + h
            p = p - lr * (h + momentum * velocity if nesterov else velocity)
        return p

    return train


def adam(lr: float, b1: float, b2: float, eps: float, decay: float, decoupled: float = 0.0) -> Any:
    def train(p: Array, gradients: list[Array]) -> Array:
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t, g in enumerate(gradients, start=1):
            p, h = p - lr * decoupled * p, g + decay * p
            m = b1 * m + (1 - b1) * h
            v = b2 * v + (1 - b2) * h**2
            p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        return p

    return train


CASES: dict[str, tuple[Callable[[], Optimizer], Any]] = {
    "sgd": (lambda: SGD(0.3, momentum=0.0), sgd(0.3, 0.0, 0.0, False)),
    "sgd decay": (lambda: SGD(0.3, momentum=0.0, weight_decay=0.2), sgd(0.3, 0.0, 0.2, False)),
    "momentum": (lambda: SGD(0.1, momentum=0.7, weight_decay=0.2), sgd(0.1, 0.7, 0.2, False)),
    "nesterov": (lambda: SGD(0.1, momentum=0.7, weight_decay=0.2, nesterov=True), sgd(0.1, 0.7, 0.2, True)),
    "adam": (lambda: Adam(0.05), adam(0.05, 0.9, 0.999, 1e-8, 0.0)),
    "adam, a large eps": (lambda: Adam(0.05, (0.6, 0.8), eps=0.5, weight_decay=0.3), adam(0.05, 0.6, 0.8, 0.5, 0.3)),
    "adamw": (lambda: AdamW(0.05, (0.6, 0.8), eps=0.5, weight_decay=2), adam(0.05, 0.6, 0.8, 0.5, 0.0, 2)),
}


def numbers(seed: int, dtype: str) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def gradients(dtype: str) -> list[dict[str, Array]]:
    return [numbers(10 + step, dtype) for step in range(STEPS)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-13), ("float32", 2e-6)])
def test_the_formula(case: str, dtype: str, rtol: float) -> None:
    """Each step is of some ten operations on numbers near 1: within ten roundings or so."""
    make, formula = CASES[case]
    optimizer, live, start = make(), numbers(0, dtype), numbers(0, dtype)
    for g in gradients(dtype):
        optimizer.step(live, g)
    for name, p in live.items():
        expected = formula(start[name].astype(float), [g[name].astype(float) for g in gradients(dtype)])
        np.testing.assert_allclose(p, expected, rtol=rtol, atol=rtol)


def test_the_first_step_of_adam_is_the_sign_of_the_gradient() -> None:
    """Both corrections make it lr g / (|g| + eps); without one of them it is many times larger or smaller."""
    p = {"w": np.zeros(3)}
    Adam(0.5, eps=0.25).step(p, {"w": np.array([1.0, -4.0, 0.0])})
    np.testing.assert_allclose(p["w"], [-0.5 / 1.25, 0.5 * 4 / 4.25, 0], rtol=1e-12)


# Clipping


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_a_norm_above_the_clip_scales_all_gradients_alike(clip: float) -> None:
    clipped, plain = numbers(0, "float64"), numbers(0, "float64")
    (g,) = gradients("float64")[:1]
    before = {name: array.copy() for name, array in g.items()}
    SGD(0.1, momentum=0.0, clip_norm=clip).step(clipped, g)
    norm = np.sqrt(sum((array**2).sum() for array in g.values()))
    factor = min(1, clip / (norm + 1e-6))
    assert (factor < 1) == (clip < 1)
    SGD(0.1, momentum=0.0).step(plain, {name: factor * array for name, array in g.items()})
    for name, array in clipped.items():
        np.testing.assert_allclose(array, plain[name], rtol=1e-13)
        assert np.array_equal(g[name], before[name])


# One by one


def parameters(dtype: str) -> dict[str, Parameter]:
    return {name: Parameter(name, array, trained=True) for name, array in numbers(0, dtype).items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [1, -1])
def test_gradients_applied_as_they_come_give_the_bits_of_the_step(case: str, dtype: str, order: int) -> None:
    whole, single = (CASES[case][0]() for _ in range(2))
    live, own = numbers(0, dtype), parameters(dtype)
    for step, g in enumerate(gradients(dtype)):
        scale = 1 / (1 + step)
        whole.step(live, g, lr_scale=scale)
        applier = single.scaled(scale)
        applier.begin(own.values())
        for name in [*g][::order]:
            applier.apply(own[name], g[name])
    for name, p in own.items():
        assert p.value.tobytes() == live[name].tobytes()
        assert single.state[name].steps == whole.state[name].steps == STEPS
        for one, other in zip(single.state[name].arrays, whole.state[name].arrays, strict=True):
            assert one.tobytes() == other.tobytes()


def test_without_a_scale_the_optimizer_applies_by_itself() -> None:
    one, other = parameters("float32"), parameters("float32")
    (g,) = gradients("float32")[:1]
    for applier, own in ((Adam(0.1), one), (Adam(0.1).scaled(1), other)):
        applier.begin(own.values())
        for name, p in own.items():
            applier.apply(p, g[name])
    assert all(p.value.tobytes() == other[name].value.tobytes() for name, p in one.items())


def spoilt(name: str, value: Any) -> dict[str, Parameter]:
    own = parameters("float32")
    own[name].value = value
    return own


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("optimizer", "own", "error", "words"),
    [
        (SGD(0.1, clip_norm=1.0), parameters("float32"), UsageError, "the global norm is known only when every grad"),
        (Adam(0.1), spoilt("linear", read_only(np.ones((4, 5), "f4"))), UsageError, "linear: the array is read-only"),
        (Adam(0.1), spoilt("linear", np.ones((5, 4), "f4").T), UsageError, "linear: is not C-contiguous"),
        (Adam(0.1), spoilt("linear", np.ones((4, 5), "i4")), DtypeError, "linear: expected a gradient of"),
    ],
)
def test_what_cannot_be_applied_is_said_before_backward(optimizer: Any, own: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        optimizer.begin(own.values())
    assert optimizer.state == {}


def test_a_parameter_of_another_network_is_said_before_backward() -> None:
    optimizer = Adam(0.1)
    optimizer.step(numbers(0, "float32"), numbers(1, "float32"))
    with pytest.raises(ShapeError, match="take a new optimizer"):
        optimizer.begin(spoilt("linear", np.ones((9, 5), "f4")).values())


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, momentum=0), Adam(0.1), AdamW(0.1), SGD(1e38), SGD(0, 0.5)])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_gradient_that_leads_nowhere_finite_changes_neither_parameter_nor_state(optimizer: Any, value: float) -> None:
    optimizer, own = copy.deepcopy(optimizer), parameters("float32")["linear"]
    own.value *= 1e30 if optimizer.lr > 1 else 1
    before = own.value.tobytes()
    bad = np.ones_like(own.value)
    bad[2, 2] = value
    for step in (lambda: optimizer.apply(own, bad), lambda: optimizer.step({"linear": own.value}, {"linear": bad})):
        if value == 3e38 and not isinstance(optimizer, Adam) and optimizer.lr < 1:
            continue  # a step that far is finite
        with pytest.raises(ValueRangeError, match="linear: expected a finite"):
            step()
        assert own.value.tobytes() == before
        assert optimizer.state == {}


def test_adam_without_eps_refuses_to_divide_zero_by_zero() -> None:
    own = Parameter("w", np.ones(3), trained=True)
    with pytest.raises(ValueRangeError, match="w: expected a finite update"):
        Adam(0.1, eps=0).apply(own, np.array([1.0, 0.0, 1.0]))
    assert own.value.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adam(0.1, betas=(0.9,)),
        lambda: Adam(0.1, betas=0.9),
        lambda: Adam(0.1, betas=("a", "b")),
        lambda: Adam("0.1"),
        lambda: Adam(True),
        lambda: SGD(None),
        lambda: SGD([0.1]),
        lambda: SGD(0.1, clip_norm=-1),
        lambda: SGD(0.1, momentum=0, nesterov=True),
        lambda: SGD(0.1, nesterov="yes"),
        lambda: SGD(10**400),
        lambda: SGD(0.1).step([], {}),
        lambda: SGD(0.1).step({}, None),
        lambda: SGD(0.1).step({"w": np.ones(2)}, {"w": [1.0, 2.0]}),  # type: ignore[dict-item]
        lambda: SGD(0.1).step({"w": [1.0]}, {"w": np.ones(1)}),  # type: ignore[dict-item]
        lambda: SGD(0.1).step({"w": np.ones(2, ">f8")}, {"w": np.ones(2, ">f8")}),
        lambda: SGD(0.1).step({"w": np.ones(2, "f2")}, {"w": np.ones(2, "f2")}),
        lambda: SGD(0.1).scaled(np.nan),
        lambda: SGD(1e308).scaled(10),
    ],
)
def test_odd_settings_are_refused_in_words(make: Callable[[], object]) -> None:
    with pytest.raises(MinitlError, match=r"expected|unknown"):
        make()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.array])
def test_numbers_of_any_numpy_kind_are_taken(kind: Any) -> None:
    optimizer = SGD(kind(1), momentum=kind(0))
    assert (type(optimizer.lr), optimizer.lr, optimizer.slots) == (float, 1.0, 0)
