import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import DtypeError, ShapeError, UnknownNameError, UsageError, ValueRangeError
from minitl.kernels import threads
from minitl.training.optimizers import SGD, Adam, AdamW

SHAPES = {"conv": (3, 3, 5), "norm": (5,), "linear": (4, 5), "frozen": (2, 3)}
TRAINED = ["conv", "norm", "linear"]


def parameters(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def gradients(dtype="float64", seed=0):
    rng = np.random.default_rng(100 + seed)
    return {name: rng.standard_normal(SHAPES[name]).astype(dtype) for name in TRAINED}


OURS = {
    "sgd": lambda: SGD(0.1),
    "sgd plain": lambda: SGD(0.1, momentum=0.0, weight_decay=0.05),
    "sgd decay": lambda: SGD(0.1, momentum=0.8, weight_decay=0.05),
    "adam": lambda: Adam(0.01),
    "adam decay": lambda: Adam(0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    "nesterov": lambda: SGD(0.1, momentum=0.8, weight_decay=0.05, nesterov=True),
    "adamw": lambda: AdamW(0.02, weight_decay=0.3),
    "sgd weights": lambda: SGD(0.1, weight_decay=0.5, decay_vectors=False),
    "adamw weights": lambda: AdamW(0.02, weight_decay=3, decay_vectors=False),
}


def torchs(kind, tensors):
    from torch import optim

    def weights(decay):
        return [
            {"params": [t for t in tensors if t.ndim > 1], "weight_decay": decay},
            {"params": [t for t in tensors if t.ndim == 1], "weight_decay": 0.0},
        ]

    return {
        "nesterov": lambda: optim.SGD(tensors, 0.1, momentum=0.8, weight_decay=0.05, nesterov=True),
        "adamw": lambda: optim.AdamW(tensors, 0.02, weight_decay=0.3),
        "sgd weights": lambda: optim.SGD(weights(0.5), 0.1, momentum=0.9),
        "adamw weights": lambda: optim.AdamW(weights(3), 0.02),
        "sgd": lambda: optim.SGD(tensors, 0.1, momentum=0.9),
        "sgd plain": lambda: optim.SGD(tensors, 0.1, momentum=0.0, weight_decay=0.05),
        "sgd decay": lambda: optim.SGD(tensors, 0.1, momentum=0.8, weight_decay=0.05),
        "adam": lambda: optim.Adam(tensors, 0.01),
        "adam decay": lambda: optim.Adam(tensors, 0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    }[kind]()


@pytest.mark.parametrize("kind", OURS)
def test_seven_steps_are_those_of_pytorch(kind):
    torch = pytest.importorskip("torch")
    ours = parameters()
    theirs = {name: torch.tensor(array.copy(), requires_grad=True) for name, array in ours.items()}
    optimizer, reference = OURS[kind](), torchs(kind, list(theirs.values()))
    for step in range(7):
        scale = 1 / (1 + step)
        grads = gradients(seed=step)
        if step == 4:
            del grads["norm"]  # this one rests: its own count of steps falls behind
        optimizer.step(ours, grads, lr_scale=scale)
        for group in reference.param_groups:
            group["lr"] = optimizer.lr * scale
        for name, tensor in theirs.items():
            tensor.grad = torch.tensor(grads[name]) if name in grads else None
        reference.step()
        for name, tensor in theirs.items():
            np.testing.assert_allclose(ours[name], tensor.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_sgd_by_hand():
    p = {"w": np.array([1.0])}
    optimizer = SGD(lr=0.5, momentum=0.5)
    optimizer.step(p, {"w": np.array([1.0])})
    assert p["w"] == 0.5  # v = 1
    optimizer.step(p, {"w": np.array([1.0])}, lr_scale=0.1)
    assert p["w"] == pytest.approx(0.5 - 0.05 * 1.5)  # v = 1.5


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_what_has_a_gradient_moves_and_in_place(kind, dtype):
    live = parameters(dtype)
    before = {name: array.copy() for name, array in live.items()}
    held = dict(live)
    given_gradients = gradients(dtype)
    kept = {name: array.copy() for name, array in given_gradients.items()}
    OURS[kind]().step(live, given_gradients)
    assert all(live[name] is held[name] and live[name].dtype == dtype for name in live)
    assert np.array_equal(live["frozen"], before["frozen"])
    assert all((live[name] != before[name]).all() for name in TRAINED)
    assert all(np.array_equal(given_gradients[name], kept[name]) for name in TRAINED)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_state_is_slots_times_the_trained_bytes(kind, dtype):
    optimizer = OURS[kind]()
    assert optimizer.state_bytes == 0
    for _ in range(2):
        optimizer.step(parameters(dtype), gradients(dtype))
    assert optimizer.state_bytes == optimizer.slots * sum(g.nbytes for g in gradients(dtype).values())
    assert optimizer.slots == (2 if "adam" in kind else 0 if kind == "sgd plain" else 1)


@pytest.mark.parametrize("kind", OURS)
def test_a_step_allocates_nothing_of_a_parameters_size(kind):
    p, g = {"w": np.ones(1 << 20, np.float32)}, {"w": np.ones(1 << 20, np.float32)}
    optimizer = OURS[kind]()
    optimizer.step(p, g)  # makes the state, and compiles
    tracemalloc.start()
    try:
        optimizer.step(p, g)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < p["w"].nbytes / 20


@given(seed=st.integers(0, 5), kind=st.sampled_from(sorted(OURS)))
def test_float32_follows_float64(seed, kind):
    single, double = parameters("float32", seed), parameters("float64", seed)
    one, two = OURS[kind](), OURS[kind]()
    for step in range(3):
        one.step(single, gradients("float32", step))
        two.step(double, gradients("float64", step))
    for name in SHAPES:
        np.testing.assert_allclose(single[name], double[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sgd decay", "adam decay"])
def test_the_number_of_threads_changes_no_bit(kind, monkeypatch):
    results = []
    for count in (1, 2):
        monkeypatch.setattr(threads, "_threads", count)
        p = {"w": np.linspace(-1, 1, 1 << 20, dtype=np.float32)}
        optimizer = OURS[kind]()
        for _ in range(2):
            optimizer.step(p, {"w": np.cos(p["w"])})
        results.append(p["w"].tobytes())
    assert results[0] == results[1]


def unchanged_after(error, match, change):
    """`change` the gradients in a way that raises; no parameter and no state may have moved."""
    live, optimizer = parameters(), Adam(0.1)
    optimizer.step(live, gradients())
    before = {name: array.copy() for name, array in live.items()}
    state = optimizer.state["conv"].arrays[0].copy()
    bad = change(gradients(seed=1))
    with pytest.raises(error, match=match):
        optimizer.step(live, bad)
    assert all(np.array_equal(live[name], before[name]) for name in live)
    assert np.array_equal(optimizer.state["conv"].arrays[0], state)
    assert optimizer.state["conv"].steps == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_named_and_moves_nothing(value):
    def spoil(grads):
        grads["linear"][2, 3] = value
        return grads

    unchanged_after(ValueRangeError, "linear: expected a finite gradient", spoil)


def test_a_gradient_that_fits_no_parameter_is_refused_and_moves_nothing():
    unchanged_after(UnknownNameError, "unknown parameter 'other'", lambda g: g | {"other": np.zeros(5)})
    unchanged_after(ShapeError, "linear: expected a gradient of shape", lambda g: g | {"linear": np.zeros((5, 4))})
    unchanged_after(DtypeError, "linear: expected", lambda g: g | {"linear": np.zeros((4, 5), np.float32)})
    unchanged_after(UsageError, "linear: is not C-contiguous", lambda g: g | {"linear": np.zeros((5, 4)).T})


def test_an_optimizer_is_not_for_two_networks():
    optimizer = Adam(0.1)
    optimizer.step({"w": np.zeros(4)}, {"w": np.ones(4)})
    with pytest.raises(ShapeError, match="take a new optimizer"):
        optimizer.step({"w": np.zeros(9)}, {"w": np.ones(9)})


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(np.nan),
        lambda: SGD(-0.1),
        lambda: SGD(0.1, momentum=1.0),
        lambda: SGD(0.1, weight_decay=np.inf),
        lambda: Adam(np.inf),
        lambda: Adam(0.1, betas=(1.0, 0.9)),
        lambda: Adam(0.1, eps=-1e-8),
        lambda: Adam(0.1).step({}, {}, lr_scale=np.nan),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueRangeError, match="optimizer: expected"):
        make()
