"""Bad input raises a MinitlError, a ValueError whose text names the op, what it expected and what it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import SPECS, Dims, Spec, backward, forward, make

from minitl import ops
from minitl.arrays import Array
from minitl.errors import DtypeError, MinitlError, RuleError, ShapeError, UnknownNameError, ValueRangeError
from minitl.ops import Op
from minitl.ops.rules.subspace import IN_SUBSPACE


def ones(*shape: int, dtype: str = "float32") -> Array:
    return np.ones(shape, dtype)


X, C = ones(2, 5, 4, 3), ones(3)  # a map of 3 channels, and a vector of as many
NORM = (X, C, C, C, C)
LABELS = np.array([0, 1])

SHAPES = [  # op, arrays, attributes, expected, got
    (ops.conv, (ones(5, 4, 3), ones(4, 3, 3, 3)), {}, "(N, H, W, C)", "(5, 4, 3)"),
    (ops.conv, (X, ones(4, 2, 3, 3)), {}, "(O, 3, k, k)", "(4, 2, 3, 3)"),
    (ops.conv, (X, ones(4, 3, 2, 2)), {}, "k odd", "(4, 3, 2, 2)"),
    (ops.conv, (X, ones(4, 3, 3, 5)), {}, "(O, 3, k, k)", "(4, 3, 3, 5)"),
    (ops.conv, (X, ones(4, 3, 3, 3), C), {}, "(4,)", "(3,)"),
    (ops.conv, (ones(0, 5, 4, 3), ones(4, 3, 3, 3)), {}, "no empty axis", "(0, 5, 4, 3)"),
    (ops.depthwise_conv, (X, ones(4, 1, 3, 3)), {}, "(3, 1, k, k)", "(4, 1, 3, 3)"),
    (ops.depthwise_conv, (X, ones(3, 3, 3, 3)), {}, "(O, 1, k, k)", "(3, 3, 3, 3)"),
    (ops.depthwise_conv, (X, ones(3, 1, 4, 4)), {}, "k odd", "(3, 1, 4, 4)"),
    (ops.depthwise_conv, (X[0], ones(3, 1, 3, 3)), {}, "(N, H, W, C)", "(5, 4, 3)"),
    (ops.pointwise_conv, (X, ones(4, 2, 1, 1)), {}, "(O, 3, 1, 1)", "(4, 2, 1, 1)"),
    (ops.pointwise_conv, (X, ones(4, 3)), {}, "(O, 3, 1, 1)", "(4, 3)"),
    (ops.pointwise_conv, (X, ones(4, 3, 1, 1), C), {}, "(4,)", "(3,)"),
    (ops.linear, (ones(2, 3), ones(4, 2)), {}, "x (N, I) and weight (O, I)", "x (2, 3) and weight (4, 2)"),
    (ops.linear, (X, ones(4, 3)), {}, "x (N, I)", "(2, 5, 4, 3)"),
    (ops.linear, (ones(2, 3), ones(4, 3), C), {}, "(4,)", "(3,)"),
    (ops.batch_norm, (ones(1, 1, 1, 3), C, C, C, C), {}, "at least two values per channel", "one: shape (1, 1, 1, 3)"),
    (ops.batch_norm, (X, ones(4), C, C, C), {}, "weight of shape (3,)", "(4,)"),
    (ops.batch_norm, (X, C, C, ones(3, 1), C), {}, "running_mean of shape (3,)", "(3, 1)"),
    (ops.frozen_norm, (X, C, C, C, ones(2)), {}, "running_var of shape (3,)", "(2,)"),
    (ops.frozen_norm, (ones(2, 3), C, C, C, C), {}, "(N, H, W, C)", "(2, 3)"),
    (ops.scale, (X, ones(2, 3)), {}, "gate (2, 1, 1, 3)", "gate (2, 3)"),
    (ops.scale, (X, ones(1, 1, 1, 3)), {}, "gate (2, 1, 1, 3)", "gate (1, 1, 1, 3)"),
    (ops.global_avg_pool, (ones(2, 3),), {}, "(N, H, W, C)", "(2, 3)"),
    (ops.add, (X, ones(2, 5, 4, 1)), {}, "of one shape", "(2, 5, 4, 3) and (2, 5, 4, 1)"),
    (ops.add, (ones(2, 0), ones(2, 0)), {}, "no empty axis", "(2, 0)"),
    (ops.dropout, (ones(),), {"p": 0.5, "seed": 0}, "(..., C)", "()"),
    *((op, (ones(),), {}, "(..., C)", "()") for op in (ops.relu, ops.relu6, ops.hard_swish, ops.hard_sigmoid)),
    *((op, (ones(2, 0),), {}, "no empty axis", "(2, 0)") for op in (ops.relu, ops.relu6, ops.hard_swish)),
    (ops.cross_entropy, (ones(2, 3), np.array([0, 1, 2])), {}, "labels (N,)", "(3,)"),
    (ops.cross_entropy, (X, LABELS), {}, "logits (N, K)", "(2, 5, 4, 3)"),
    (ops.grouped_conv, (X, ones(4, 3, 3, 3)), {"groups": 2}, "groups that divide 3 and 4 channels", "groups=2"),
    (ops.grouped_conv, (X, ones(4, 3, 3, 3)), {"groups": "2"}, "groups that divide 3 and 4 channels", "groups=2"),
    (ops.grouped_conv, (X, ones()), {}, "(O, 3, k, k)", "weight ()"),
    (ops.group_norm, (X, C, C), {"groups": 0}, "groups that divide 3 channels", "groups=0"),
    (ops.group_norm, (ones(2, 1, 1, 3), C, C), {"groups": 3}, "two values per group", "one: shape (2, 1, 1, 3)"),
    (ops.group_norm, (X, C, ones(4)), {}, "bias of shape (3,)", "(4,)"),
    (ops.bilinear_up, (X,), {"size": (5, 3)}, "a size (height, width) of at least (5, 4)", "(5, 3)"),
    (ops.avg_pool, (X,), {"window": 5}, "a map of at least 5 x 5", "5 x 4"),
    (IN_SUBSPACE["conv"], (X[0], ones(4, 3, 3, 3), C, C, C), {}, "(N, H, W, C)", "(5, 4, 3)"),
    (IN_SUBSPACE["conv"], (X, ones(4, 3, 3, 3), C, C, C), {}, "basis_h (K, 5)", "(3,)"),
]
RANGES = [
    (ops.conv, (X, ones(4, 3, 3, 3)), {"stride": 3}, "stride 1 or 2", "stride 3"),
    (ops.depthwise_conv, (X, ones(3, 1, 3, 3)), {"stride": 0}, "stride 1 or 2", "stride 0"),
    (ops.conv, (X, ones(4, 3, 3, 3)), {"stride": 2.0}, "stride 1 or 2", "stride 2.0"),
    (ops.conv, (X, ones(4, 3, 3, 3)), {"padding": 1}, "padding (above, below, left, right)", "got 1"),
    (ops.batch_norm, NORM, {"eps": -1e-3}, "eps to be a finite number from 0 to inf", "-0.001"),
    (ops.frozen_norm, NORM, {"eps": float("nan")}, "eps to be a finite number", "nan"),
    (ops.batch_norm, NORM, {"momentum": 1.5}, "momentum to be a finite number from 0 to 1", "1.5"),
    (ops.avg_pool, (X,), {"window": {}}, "window to be a number, a text or several in a row", "{}"),
    (ops.dropout, (X,), {"p": 0.5, "seed": -1}, "a seed of whole numbers", "-1"),
    (ops.cross_entropy, (ones(2, 3), LABELS), {"smoothing": 1.5}, "smoothing to be a finite number from 0 to 1", "1.5"),
    (ops.dropout, (X,), {"p": -0.1, "seed": 0}, "0 <= p < 1", "p = -0.1"),
    (ops.dropout, (X,), {"p": 1.0, "seed": 0}, "0 <= p < 1", "p = 1.0"),
    (ops.dropout, (X,), {"p": float("nan"), "seed": 0}, "0 <= p < 1", "p = nan"),
    (ops.cross_entropy, (ones(2, 3), np.array([0, 3])), {}, "labels from 0 to 2", "got 3"),
    (ops.cross_entropy, (ones(2, 3), np.array([0, -1])), {}, "labels from 0 to 2", "got -1"),
]
DTYPES: list[Any] = [
    (ops.conv, (X, ones(4, 3, 3, 3, dtype="float64")), {}, "float32 or float64", "x float32, weight float64"),
    (ops.add, (X, X.astype("float64")), {}, "throughout", "a float32, b float64"),
    (ops.batch_norm, (*NORM[:4], C.astype("float64")), {}, "throughout", "running_var float64"),
    (ops.relu, ([[1.0, 2.0]],), {}, "an array as x", "list"),
    (ops.conv, (X, None), {}, "an array as weight", "NoneType"),
    (ops.relu, (X.astype("float16"),), {}, "float32 or float64", "x float16"),
    (ops.relu, (X.astype("int64"),), {}, "float32 or float64", "x int64"),
    (ops.relu, (X.astype(">f4"),), {}, "float32 or float64", "x >f4"),
    (ops.cross_entropy, (ones(2, 3), ones(2)), {}, "integer labels", "float32"),
    (ops.cross_entropy, (ones(2, 3), np.array([True, False])), {}, "integer labels", "bool"),
]
NAMES = [
    (ops.relu, (X,), {"slope": 0.1}, "(none)", "'slope'"),
    (ops.conv, (X, ones(4, 3, 3, 3)), {"strides": 1}, "choose one of: stride", "'strides'"),
    (ops.dropout, (X,), {"p": 0.5}, "attributes p and seed", "no seed"),
    (ops.dropout, (X,), {}, "attributes p and seed", "no p and no seed"),
    (ops.batch_norm, (X, C), {}, "5 to 5 inputs", "2 inputs"),
    (ops.relu, (X, X), {}, "1 to 1 inputs", "2 inputs"),
]
TABLE = [
    *((ShapeError, *row) for row in SHAPES),
    *((ValueRangeError, *row) for row in RANGES),
    *((DtypeError, *row) for row in DTYPES),
    *((UnknownNameError, *row) for row in NAMES),
]


@pytest.mark.parametrize(("error", "op", "arrays", "attrs", "expected", "got"), TABLE)
def test_forward_says_what_is_wrong(
    error: type[MinitlError], op: Op, arrays: tuple[Array, ...], attrs: Mapping[str, Any], expected: str, got: str
) -> None:
    with pytest.raises(error) as raised:
        op.forward(*arrays, attrs=attrs, needs=(False,) * len(arrays))
    where, what = str(raised.value).split(": ", 1)
    assert where in (op.name, attrs.get("kind"))
    assert expected in what
    assert got in what


@pytest.mark.parametrize(("op", "arrays", "attrs", "expected", "got"), [*SHAPES, *RANGES[:-3]])
def test_cost_refuses_what_forward_refuses(
    op: Op, arrays: tuple[Array, ...], attrs: Mapping[str, Any], expected: str, got: str
) -> None:
    with pytest.raises(MinitlError) as raised:
        op.cost([a.shape for a in arrays], "float32", attrs=attrs, needs=(False,) * len(arrays))
    assert expected in str(raised.value)
    assert got in str(raised.value)


@pytest.mark.parametrize("op", [ops.relu, ops.relu6, ops.hard_swish], ids=lambda op: op.name)
def test_an_unknown_rule_is_refused_and_those_that_exist_listed(op: Op) -> None:
    with pytest.raises(UnknownNameError) as raised:
        op.forward(X, needs=(True,), rule="sgn")
    close = " (did you mean 'sign'?)" * ("sign" in op.rules)
    listed = f"{op.name}: unknown backward rule 'sgn'{close}; choose one of: {', '.join(op.rules)}"
    assert str(raised.value).startswith(listed)


REFUSED = [
    (ops.frozen_norm, NORM, "weight"),
    (ops.frozen_norm, NORM, "running_mean"),
    (ops.batch_norm, NORM, "running_var"),
    (ops.cross_entropy, (ones(2, 3), LABELS), "labels"),
]


@pytest.mark.parametrize(("op", "arrays", "name"), REFUSED)
def test_a_gradient_the_op_does_not_have_is_refused(op: Op, arrays: tuple[Array, ...], name: str) -> None:
    needs = [n == name for n in op.inputs[: len(arrays)]]
    with pytest.raises(RuleError) as raised:
        op.forward(*arrays, needs=needs)
    assert str(raised.value) == f"{op.name}: has no gradient for {name}; do not train it"


def test_every_refusal_is_a_value_error_and_leaves_running_statistics_alone() -> None:
    mean, var = ones(3), ones(3)
    with pytest.raises(ValueError, match="batch_norm"):
        ops.batch_norm.forward(X, C, C, mean, var, attrs={"moment": 1}, needs=(False,) * 5)
    assert (mean == 1).all()
    assert (var == 1).all()


def test_too_few_flags_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"conv: expected 2 to 3 inputs .*, got 2 inputs and 1 flags"):
        ops.conv.forward(X, ones(4, 3, 3, 3), needs=(True,))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_slope_that_is_not_of_the_output_is_refused(spec: Spec) -> None:
    """Kernels go by its address: with fewer numbers they would read beyond it."""
    case = make(spec, Dims(n=3, h=7, w=6, c=5))
    _, saved = forward(case)
    gy = case.gy
    wrong: list[tuple[Array, type[Exception]]] = [(gy.astype(np.float32), DtypeError), (gy.astype(">f8"), DtypeError)]
    wrong.append((np.stack([gy, gy]), ShapeError))
    if gy.ndim:
        wrong += [(gy[:-1], ShapeError), (gy[..., :-1], ShapeError), (np.concatenate([gy, gy], axis=-1), ShapeError)]
    for given, error in wrong:
        with pytest.raises(error, match=f"^{spec.op.name}: expected gy .*, float64, got .*"):
            backward(replace(case, gy=given), saved)
