"""Weight standardisation: PyTorch's values and gradients, what the filters become, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Dims, Spec, make, run
from checks import check_contract, check_kept, check_needed_for, check_one_by_one, check_workspace

from minitl import ops
from minitl.errors import ShapeError
from minitl.ops.convolutions.standardised_conv import EPS, standardise

SPEC = Spec(
    ops.standardised_conv,
    lambda d: ((d.n, d.h, d.w, 2 * d.c), (2 * d.o, d.c * (1 + (d.k == 1)), d.k, d.k)),
    lambda d: {"groups": 1 if d.k == 1 else 2, "stride": d.stride},
)
SIZES = (Dims(), Dims(k=1), Dims(k=5, stride=2, h=7, o=1), Dims(n=1, h=1, w=1, c=1))


@pytest.mark.parametrize("dims", SIZES, ids=range(len(SIZES)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_contract(dims: Dims, dtype: str) -> None:
    for layouts in ((), ("transposed", "sliced", "reversed")):
        check_contract(make(SPEC, dims, dtype=dtype, layouts=(*layouts, *["dense"] * 6)))
    case = make(SPEC, dims, dtype=dtype)
    for check in (check_kept, check_needed_for, check_one_by_one):
        check(case)


@pytest.mark.parametrize("needs", [(False, False), (True, False), (False, True), (True, True)])
def test_workspace(needs: tuple[bool, bool]) -> None:
    for dims in (Dims(n=4, h=32, w=32, c=64, o=32), Dims(n=2, h=6, w=6, c=160, o=128)):
        check_workspace(make(SPEC, dims, dtype="float32", needs=needs))


@pytest.mark.parametrize("dims", SIZES, ids=range(len(SIZES)))
def test_values_and_gradients_are_those_of_torch(dims: Dims) -> None:
    torch = pytest.importorskip("torch")
    case = make(SPEC, dims)
    x, w = (torch.tensor(a, requires_grad=True) for a in case.arrays)
    v = w - w.mean(dim=(1, 2, 3), keepdim=True)
    standard = v / (w.reshape(len(w), -1).std(dim=1) + EPS).reshape(-1, 1, 1, 1)
    attrs = case.keywords["attrs"]
    y = torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2), standard, stride=attrs["stride"], padding=dims.k // 2, groups=attrs["groups"]
    ).permute(0, 2, 3, 1)
    y.backward(torch.tensor(case.gy))
    got = run(case)
    for mine, theirs in zip((got.y, *got.gradients), (y.detach(), x.grad, w.grad), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-10, atol=1e-9)


def test_gradient_by_central_differences() -> None:
    case = make(SPEC, Dims(), seed=3)
    x, w = case.arrays
    along = np.random.default_rng(0).standard_normal(w.shape)
    ahead, behind = (ops.standardised_conv.forward(x, w + step * along, **case.keywords)[0] for step in (1e-6, -1e-6))
    slope = ((ahead - behind) * case.gy).sum() / 2e-6
    assert (run(case).gradients[1] * along).sum() == pytest.approx(slope, rel=1e-7)


def test_filters_have_mean_0_and_deviation_1_and_constant_ones_become_0() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)) * 7 + 2
    weight[0] = 5
    standard, _ = standardise(weight)
    rows = standard.reshape(4, -1)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(rows[1:].std(axis=1, ddof=1), 1, rtol=1e-5)
    assert (rows[0] == 0).all()
    x, gy = np.ones((1, 4, 4, 3)), np.ones((1, 4, 4, 4))
    _, saved = ops.standardised_conv.forward(x, weight, needs=(True, True))
    for gradient in ops.standardised_conv.backward(saved, gy, needs=(True, True), params=(weight,)):
        assert np.isfinite(gradient).all()


def test_a_filter_of_one_number_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least two numbers per filter"):
        ops.standardised_conv.forward(np.ones((1, 2, 2, 1)), np.ones((3, 1, 1, 1)), needs=(True, True))
