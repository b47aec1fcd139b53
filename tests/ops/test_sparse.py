"""Weights that keep N of every M: which they are, what is computed from them, and where that is exact."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Dims, Spec, make, run
from checks import check_contract, check_kept, check_needed_for, check_one_by_one, same_bytes

from minitl import ops
from minitl.errors import MinitlError
from minitl.layers import Conv, LayerPlan, Linear
from minitl.ops.rules.sparse import SPARSE, largest
from minitl.reproduce.slope import lost

RNG = np.random.default_rng(0)
each = pytest.mark.parametrize("name", SPARSE)


def spec(name: str, pattern: tuple[int, int]) -> Spec:
    x, w = ((6, 8), (4, 8)) if name == "linear" else ((2, 3, 5, 8), (4, 8, 1, 1))
    return Spec(SPARSE[name], lambda d: (x, w, (4,)), lambda d: {"pattern": pattern})


def test_exactly_n_of_m_are_kept_and_they_are_the_largest() -> None:
    weight = RNG.standard_normal((12, 16, 1, 1))
    for axis, groups in ((1, weight.reshape(12, 4, 4)), (0, weight.reshape(3, 4, 16).swapaxes(1, 2))):
        mask = largest(weight, (2, 4), axis)
        grouped = mask.reshape(12, 4, 4) if axis else mask.reshape(3, 4, 16).swapaxes(1, 2)
        assert (grouped.sum(axis=-1) == 2).all()
        assert (np.where(grouped, np.inf, abs(groups)).min(-1) <= np.where(grouped, abs(groups), np.inf).min(-1)).all()
    wide = RNG.standard_normal((1, 256))
    assert set(np.flatnonzero(largest(wide, (3, 256), 1))) == set(np.argsort(-abs(wide[0]))[:3])
    ties = np.array([[1.0, -1.0, 1.0, 1.0], [0, 0, 0, -2]])
    assert largest(ties, (2, 4), 1).tolist() == [[True, True, False, False], [True, False, False, True]]


@each
def test_by_definition(name: str) -> None:
    case = make(spec(name, (2, 4)), Dims())
    x, weight, bias = (a.reshape(-1, a.shape[-1]) if i == 0 else a.reshape(a.shape[:2]) for i, a in
                       enumerate(case.arrays))  # fmt: skip
    forward_mask = largest(weight, (2, 4), 1)
    pruned = weight * forward_mask
    both = pruned * largest(pruned, (2, 4), 0)
    gy = case.gy.reshape(-1, 4)
    got = run(case)
    np.testing.assert_allclose(got.y.reshape(-1, 4), x @ pruned.T + bias, rtol=1e-12)
    for found, expected in zip(got.gradients, (gy @ both, gy.T @ x * forward_mask, gy.sum(axis=0)), strict=True):
        assert found is not None
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-11, atol=1e-12)
    assert 0 < np.count_nonzero(both) < np.count_nonzero(pruned) == weight.size // 2


@each
def test_contract_and_what_is_kept_is_all_of_x(name: str) -> None:
    for dtype in ("float32", "float64"):
        case = make(spec(name, (2, 4)), Dims(), dtype=dtype)
        check_contract(case)
        check_kept(case)
        check_needed_for(case)
        check_one_by_one(case)
        assert run(case).saved["x"] is case.arrays[0]


@each
def test_all_of_m_is_dense_to_the_bit(name: str) -> None:
    case = make(spec(name, (4, 4)), Dims())
    y, saved = getattr(ops, name).forward(*case.arrays, needs=case.needs)
    dense = getattr(ops, name).backward(saved, case.gy, needs=case.needs, params=case.params)
    got = run(case)
    assert same_bytes(got.y, y)
    assert all(same_bytes(a, b) for a, b in zip(got.gradients, dense, strict=True))


@each
def test_where_the_second_pruning_takes_nothing_the_gradients_are_the_forwards(name: str) -> None:
    case = make(spec(name, (2, 4)), Dims())
    weight = case.arrays[1]
    weight *= np.array([[1, 1, 0, 0] * 2, [0, 0, 1, 1] * 2] * 2).reshape(weight.shape)
    y, saved = getattr(ops, name).forward(*case.arrays, needs=case.needs)
    gx, gw, _ = getattr(ops, name).backward(saved, case.gy, needs=case.needs, params=case.params)
    got = run(case)
    assert same_bytes(got.y, y)
    assert same_bytes(got.gradients[0], gx)
    assert same_bytes(got.gradients[1], gw * (weight != 0))


@pytest.mark.parametrize("pattern", [(1, 2), (2, 4), (2, 8)])
def test_the_second_pruning_loses_what_the_formula_says(pattern: tuple[int, int]) -> None:
    weight = RNG.standard_normal((512, 512))
    weight *= largest(weight, pattern, 1)
    both = weight * largest(weight, pattern, 0)
    share = (np.count_nonzero(weight) - np.count_nonzero(both)) / weight.size
    assert share == pytest.approx(lost(*pattern), abs=0.003)


def test_what_does_not_fit_names_the_layer_and_what_fits() -> None:
    train = frozenset({"weight"})
    conv = Conv("features.3.conv", "project", 48, 6, rng=RNG, dtype="float32")
    words = r"features\.3\.conv \(pointwise_conv\): expected N of M with M dividing .* 6 outputs, got 2 of 4"
    with pytest.raises(MinitlError, match=words):
        conv.apply(LayerPlan(train=train, pattern=(2, 4)))
    with pytest.raises(MinitlError, match="got 3 of 2"):
        conv.apply(LayerPlan(train=train, pattern=(3, 2)))
    depthwise = Conv("here", "depthwise", 8, 8, kernel=3, depthwise=True, rng=RNG, dtype="float32")
    for layer, plan in ((depthwise, LayerPlan(pattern=(2, 4))), (conv, LayerPlan(pattern=(2, 2), rule="razor"))):
        with pytest.raises(MinitlError, match="a pattern is for a 1x1 convolution or a linear layer without another"):
            layer.apply(plan)
    linear = Linear("there", 8, 4, rng=RNG, dtype="float32")
    linear.apply(LayerPlan(train=train, pattern=(2, 4)))
    assert np.count_nonzero(linear.parameters["weight"].value) == 16 == linear.trained_count
