"""Label smoothing and class weights are those of PyTorch; without them, nothing has changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl import Tape, Var, cross_entropy, ops
from minitl.errors import ValueRangeError

OPTIONS: list[dict[str, Any]] = [
    {"smoothing": 0.1},
    {"smoothing": 1.0},
    {"weights": (0.5, 3.0, 1.0, 0.01)},
    {"smoothing": 0.3, "weights": (0.5, 3.0, 1.0, 0.01)},
]


@pytest.mark.parametrize("attrs", OPTIONS)
@given(n=st.integers(1, 9), seed=st.integers(0, 99))
def test_loss_and_gradient_are_those_of_torch(attrs: dict[str, Any], n: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    z, labels = rng.standard_normal((n, 4)) * 5, rng.integers(0, 4, n)
    y, saved = ops.cross_entropy.forward(z, labels, attrs=attrs, needs=(True, False))
    gz, _ = ops.cross_entropy.backward(saved, np.array(0.7), attrs=attrs, needs=(True, False))
    theirs = torch.tensor(z, requires_grad=True)
    weights = torch.tensor(attrs["weights"]).double() if "weights" in attrs else None
    smoothing = attrs.get("smoothing", 0.0)
    loss = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), weights, label_smoothing=smoothing)
    (0.7 * loss).backward()
    np.testing.assert_allclose(y, loss.detach().numpy(), rtol=1e-6)  # torch holds the weights in float32
    assert gz is not None
    np.testing.assert_allclose(gz, theirs.grad.numpy(), rtol=1e-6, atol=1e-8)


@given(n=st.integers(1, 9), seed=st.integers(0, 99), dtype=st.sampled_from(["float32", "float64"]))
def test_no_smoothing_and_equal_weights_are_the_plain_loss(n: int, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    z, labels = rng.standard_normal((n, 5)).astype(dtype), rng.integers(0, 5, n)
    plain, saved = ops.cross_entropy.forward(z, labels, needs=(True, False))
    attrs = {"smoothing": 0.0, "weights": (1.0,) * 5}
    same, kept = ops.cross_entropy.forward(z, labels, attrs=attrs, needs=(True, False))
    assert plain == same
    one, _ = ops.cross_entropy.backward(saved, np.array(1, dtype), needs=(True, False))
    two, _ = ops.cross_entropy.backward(kept, np.array(1, dtype), attrs=attrs, needs=(True, False))
    assert one is not None
    assert two is not None
    assert two.dtype == dtype
    np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-7)


WRONG: list[dict[str, Any]] = [{"smoothing": value} for value in (-0.1, 1.5, np.nan)]
WRONG += [{"weights": value} for value in ((1, 2), (1, 1, 0), (1, 1, np.inf))]


@pytest.mark.parametrize("options", WRONG)
def test_what_makes_no_loss_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueRangeError, match=r"loss \(cross_entropy\): expected"):
        cross_entropy(Tape(), Var(np.zeros((2, 3))), [0, 1], **options)
