"""What a tape refuses: what is no value of its own, and names that two parameters share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import batch, trained

import minitl
from minitl import ops
from minitl.errors import MinitlError, UnknownNameError, UsageError
from minitl.layers import Conv, LayerPlan
from minitl.records import Var
from minitl.tape import Tape

TRAINED = LayerPlan(train=frozenset({"weight"}))


def conv(seed: int, *, trains: bool) -> Conv:
    """A 1x1 convolution of three channels: all are called the same."""
    layer = Conv("a.conv", "expand", 3, 3, rng=np.random.default_rng(seed), dtype="float32")
    if trains:
        layer.apply(TRAINED)
    return layer


def images() -> Any:
    return np.random.default_rng(0).standard_normal((2, 4, 4, 3), np.float32)


def test_two_trained_parameters_of_one_name_are_refused() -> None:
    tape, first, second = Tape(), conv(0, trains=True), conv(1, trains=True)
    y = second(tape, first(tape, Var(images())))
    with pytest.raises(UsageError, match=r"backward: two trained parameters are called a\.conv\.weight; walk each"):
        tape.backward(y)
    assert [record.saved.nbytes > 0 for record in tape.records] == [True, True]  # nothing was let go of


def test_one_that_does_not_train_may_have_the_name_of_one_that_does() -> None:
    tape, teacher, student = Tape(), conv(0, trains=False), conv(1, trains=True)
    gradients = tape.backward(student(tape, teacher(tape, Var(images()))))
    assert list(gradients) == ["a.conv.weight"]


def test_a_layer_used_twice_has_one_parameter() -> None:
    tape, layer = Tape(), conv(0, trains=True)
    assert list(tape.backward(layer(tape, layer(tape, Var(images()))))) == ["a.conv.weight"]


@pytest.mark.parametrize("value", [images(), [[1.0]], None])
def test_what_is_no_var_is_refused(value: Any) -> None:
    tape = Tape()
    with pytest.raises(
        UsageError, match=r"net\.act \(relu\): expected a Var or a Parameter, got .*minitl\.Var\(array\)"
    ):
        tape.run(ops.relu, value, layer="net.act", role="expand_act")
    with pytest.raises(UsageError, match="backward: expected a Var that this tape gave, got"):
        tape.backward(value)
    assert not tape.records


@pytest.mark.parametrize("role", ["expandd", "x", None])
def test_an_unknown_role_is_refused(role: Any) -> None:
    tape = Tape()
    with pytest.raises(UnknownNameError, match=r"net\.act \(relu\): unknown role .*choose one of: stem, "):
        tape.run(ops.relu, Var(images()), layer="net.act", role=role)
    assert not tape.records


@pytest.mark.parametrize("value", [[[1.0]], None, 3])
def test_a_var_holds_an_array(value: Any) -> None:
    with pytest.raises(MinitlError, match=f"Var: expected an array, got {type(value).__name__}"):
        Var(value)


@pytest.mark.parametrize("what", ["weights", "images"])
def test_after_a_refused_forward_pass_what_it_read_may_be_mended(what: str) -> None:
    model = trained(minitl.networks.digits_irb(num_classes=10, seed=0), "ft-all")
    x, labels = batch(model)
    weight = next(p for p in model.parameters() if p.trained)
    mended = {"weights": weight.value, "images": x}[what]
    before, tape = mended.copy(), Tape()
    mended[...] = 3e38
    with pytest.raises(MinitlError, match="expected"):
        model(tape, x)
    mended[...] = before
    gradients = tape.backward(minitl.cross_entropy(tape, model(tape, x), labels))
    assert len(gradients) > 9
