"""Cases in other people's conventions hold the same numbers, and ask for them in their form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own import step

from minitl import MinitlError, ops, oracle
from minitl.oracle import bounds
from minitl.oracle.bounds import activations
from minitl.oracle.mistakes.sums import PADDINGS, right_padding


def case_of(op: str, layout: str = "nhwc", **attrs: Any) -> oracle.Case:
    return oracle.make(op, attrs=attrs, seed=1, layout=layout)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(("weights", "axes"), [("ohwi", (0, 2, 3, 1)), ("hwio", (2, 3, 1, 0))])
def test_the_order_of_weights(weights: str, axes: tuple[int, ...], layout: str) -> None:
    for name in ("conv-bias", "depthwise_conv-k5-s2", "irb-mobiletl-hard_swish-k5-s2-se"):
        (usual,), (case,) = (list(oracle.cases(name, layout=layout, weights=w)) for w in ("oihw", weights))
        assert case.conventions["weights"] == weights
        for tensor, array in usual.tensors.items():
            turned = array.ndim == 4 and "param." in tensor
            np.testing.assert_array_equal(case.tensors[tensor], array.transpose(axes) if turned else array)
        case.check(step(case, "float32"))
    (usual,), (case,) = (list(oracle.cases("linear", weights=w)) for w in ("oihw", "hwio"))
    np.testing.assert_array_equal(case.tensors["param.weight"], usual.tensors["param.weight"].T)
    case.check(step(case, "float32"))


@pytest.mark.parametrize("op", ["conv", "depthwise_conv"])
@pytest.mark.parametrize("came", ["symmetric", "same", "valid"])
@pytest.mark.parametrize("right", ["symmetric", "same", "valid", "2,1,0,2"])
def test_what_is_said_of_another_padding_is_true(op: str, came: str, right: str) -> None:
    """The one that came by its name, and the one that is right; never one for the other."""
    case, other = (oracle.make(op, attrs={"padding": p, "stride": 2}, height=5, width=6) for p in (right, came))
    given = case.inputs | {"grad_output": np.resize(case.inputs["grad_output"], other.tensors["output"].shape)}
    other.tensors.update(given)
    report = case.compare(step(other, "float32"))
    causes = [line.cause for line in report.lines if "padding" in line.cause]
    assert report.ok == (came == right)
    assert all(cause.endswith(right_padding(right)) and PADDINGS[came] in cause for cause in causes)
    assert causes or report.ok


def test_another_order_of_weights_is_named() -> None:
    (case,) = oracle.cases("conv-bias", weights="hwio")
    right = step(case, "float32")
    report = case.compare(right | {"grad_param.weight": right["grad_param.weight"].transpose(3, 2, 0, 1)})
    assert "transposed" in report.lines[-1].cause or any("transposed" in line.cause for line in report.lines)
    report = case.compare(right | {"grad_param.weight": right["grad_param.weight"][::-1, ::-1]})
    assert any("filter flipped" in line.cause for line in report.lines)


@pytest.mark.parametrize(
    ("weights", "axes"),
    [("oihw", "out, in, row, column"), ("ohwi", "out, row, column, in"), ("hwio", "row, column, in, out")],
)
def test_of_weights_it_is_said_in_the_order_of_the_case(weights: str, axes: str) -> None:
    """A filter is flipped in its rows and columns, wherever these stand; and no other order is called right."""
    (case,) = oracle.cases("conv-bias", weights=weights)
    right, order = step(case, "float32"), axes.split(", ")

    def said(change: Callable[[Any], Any]) -> str:
        report = case.compare(right | {"grad_param.weight": change(right["grad_param.weight"])})
        return next(line.cause for line in report.lines if line.tensor == "grad_param.weight")

    assert "filter flipped" in said(lambda g: np.flip(g, (order.index("row"), order.index("column"))))
    assert "filter flipped" not in said(lambda g: np.flip(g, (order.index("in"), order.index("out"))))
    first, others = order[0] == "out", ", ".join(axis for axis in order if axis != "out")
    came = f"{others}, out" if first else f"out, {others}"
    turned = said(lambda g: np.moveaxis(g, order.index("out"), 3 if first else 0))
    assert turned == f"weights transposed: these are ({came}); weights are ({axes})"


def test_built_in_cases_in_another_size() -> None:
    for case in oracle.cases("*_conv-k3*", batch=1, height=6):
        assert case.tensors["input.x"].shape[:2] == (1, 6)
        assert "-1x6x" in case.name
        case.check(step(case, "float32"))
    assert [case.name for case in oracle.cases("linear", batch=3)] == ["linear"]


def test_biased_running_variance() -> None:
    usual, case = (case_of("batch_norm", variance=v) for v in ("unbiased", "biased"))
    x, m = usual.tensors["input.x"].astype(np.float64), 50
    before, momentum = usual.tensors["buffer.running_var"].astype(np.float64), 0.1
    biased = (1 - momentum) * before + momentum * x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(case.tensors["buffer_after.running_var"], biased, rtol=1e-12)
    right = step(case, "float32")
    assert any("unbiased running variance" in line.cause for line in case.compare(right).lines)
    right["buffer_after.running_var"] = biased.astype(np.float32)
    case.check(right)
    assert m == x[..., 0].size
    assert "biased in the running estimate" in case.conventions["variance"]


def test_one_hot_labels_and_a_summed_loss() -> None:
    usual, case = case_of("cross_entropy"), case_of("cross_entropy", labels="onehot", reduction="sum")
    labels = case.tensors["input.labels"]
    assert (labels.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(labels.argmax(axis=1), usual.tensors["input.labels"])
    right = step(usual, "float32")
    scaled = {n: 2 * right[n] for n in ("output", "grad_input.x")}
    case.check(scaled)
    causes = [line.cause for line in usual.compare(right | scaled).lines if line.cause]
    assert causes
    assert all("sum over the batch" in cause for cause in causes)


def test_a_bias_on_a_depthwise_convolution() -> None:
    case = case_of("depthwise_conv", bias=True)
    case.check(step(case, "float32"))
    assert "grad_param.bias" in case.required
    left_out = step(case, "float32") | {"output": case.tensors["output"] - case.tensors["param.bias"]}
    assert "bias left out" in str(case.compare(left_out))


@pytest.mark.parametrize("extents", [(6, 8), (7, 5), (6, 5), (2, 3)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_mirrored_images_and_kernels_turn_same_padding_into_the_symmetric_one(
    kernel: int, stride: int, extents: tuple[int, int]
) -> None:
    """As the specification says of TensorFlow's weights."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, *extents, 3)), rng.standard_normal((3, 1, kernel, kernel))
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in extents]
    sides = total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    same = np.einsum("nijuvc,cuv->nijc", windows(x, kernel, stride, sides), w[:, 0])
    mirrored = (np.ascontiguousarray(a) for a in (x[:, ::-1, ::-1], w[:, :, ::-1, ::-1]))
    y, _ = ops.depthwise_conv.forward(*mirrored, attrs={"stride": stride}, needs=(False, False))
    np.testing.assert_allclose(y[:, ::-1, ::-1], same, atol=1e-12)


PADDED = "padding" in ops.conv.attrs


def windows(x: np.ndarray, kernel: int, stride: int, sides: tuple[int, int, int, int]) -> np.ndarray:
    """Every window (N, Ho, Wo, k, k, C) of the padded map."""
    top, bottom, left, right = sides
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    return seen[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


@pytest.mark.skipif(not PADDED, reason="the ops have symmetric padding alone")
@pytest.mark.parametrize(
    ("padding", "sides"),
    [("same", (0, 1, 1, 1)), ("valid", (0, 0, 0, 0)), ("2,0,1,2", (2, 0, 1, 2)), ("symmetric", (1, 1, 1, 1))],
)
@pytest.mark.parametrize("op", ["conv", "depthwise_conv"])
def test_padding(op: str, padding: str, sides: tuple[int, int, int, int]) -> None:
    case = oracle.make(op, attrs={"padding": padding, "stride": 2}, height=6, width=7, seed=1)
    x, w = (case.tensors[n].astype(np.float64) for n in ("input.x", "param.weight"))
    formula = "nijuvc,cuv->nijc" if op == "depthwise_conv" else "nijuvc,ocuv->nijo"
    y = np.einsum(formula, windows(x, 3, 2, sides), w[:, 0] if op == "depthwise_conv" else w)
    np.testing.assert_allclose(case.tensors["output"], y, atol=1e-12)
    case.check(step(case, "float32"))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("conv", {"padding": "full"}),
        ("conv", {"padding": "1,1,1"}),
        ("conv", {"padding": "1,1,1,-1"}),
        ("conv", {"padding": 1}),
        ("batch_norm", {"variance": "sample"}),
        ("cross_entropy", {"labels": "text"}),
        ("cross_entropy", {"reduction": "none"}),
        ("irb", {"activation": "silu"}),
        ("irb", {"activation": "hard_sigmoid"}),
    ],
)
def test_unknown_conventions_are_errors(op: str, attrs: dict[str, Any]) -> None:
    with pytest.raises(MinitlError):
        oracle.make(op, attrs=attrs)
    with pytest.raises(MinitlError):
        oracle.make("conv", weights="iohw")
    with pytest.raises(MinitlError):
        list(oracle.cases("conv-bias", batch=0))


def test_what_nobody_described_has_no_bounds() -> None:
    """An activation that is new to the ops does not pass for another, nor an op for a sum of products."""
    for f in (lambda: activations.kinks("gelu", ""), lambda: activations.slope("gelu", np.zeros(1))):
        with pytest.raises(MinitlError, match="gelu"):
            f()
    call: Any = type("Call", (), {"op": ops.dropout, "rule": ""})()
    with pytest.raises(MinitlError, match="dropout"):
        bounds.forward(call, bounds.PRECISIONS["f32"])
