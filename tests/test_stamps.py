"""Stamps of arrays: which changes they see, and which, as they say, they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import LAYOUTS, laid_out
from hypothesis import given
from hypothesis import strategies as st
from models import batch, trained

import minitl
from minitl.arrays import Array
from minitl.errors import UsageError
from minitl.stamps import LOOKS, expect_unchanged, spacing, stamp
from minitl.step import loss_and_gradients
from minitl.tape import Tape
from minitl.training.optimizers import SGD, Adam

SHAPES = st.lists(st.integers(1, 12), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from(["float32", "float64", "int8", "uint8", "int64"])


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-100, 100, shape).astype(dtype)


@given(shape=SHAPES, dtype=DTYPES, layout=st.sampled_from(LAYOUTS))
def test_the_same_numbers_have_the_same_stamp_at_any_strides(shape: Any, dtype: str, layout: str) -> None:
    array = numbers(shape, dtype)
    before = array.tobytes()
    assert stamp(laid_out(array, layout)) == stamp(array) == stamp(array.copy())
    expect_unchanged("x", laid_out(array, layout), stamp(array))
    assert array.tobytes() == before


@given(size=st.integers(1, 5000), data=st.data())
def test_a_run_as_long_as_the_spacing_is_seen_wherever_it_lies(size: int, data: st.DataObject) -> None:
    array = numbers((size,), "float32")
    before, run = stamp(array), spacing(size)
    assert run % 2 == 1
    assert run <= max(1, size / LOOKS)
    start = data.draw(st.integers(0, size - run))
    array[start : start + run] += 1
    with pytest.raises(UsageError, match="backward: w changed between the forward pass and backward; walk back before"):
        expect_unchanged("w", array, before)


@given(size=st.integers(1, 2 * LOOKS), place=st.floats(0, 1, exclude_max=True))
def test_of_few_elements_each_is_seen(size: int, place: float) -> None:
    array = numbers((size,), "float64")
    before = stamp(array)
    array[int(place * size)] = np.nextafter(array[int(place * size)], 1e9)
    assert stamp(array) != before


def test_one_image_of_a_batch_of_64_is_seen() -> None:
    images = np.random.default_rng(0).standard_normal((64, 5, 7, 3)).astype("float32")
    before = stamp(images)
    for i in range(64):
        images[i] += 1
        assert stamp(images) != before
        images[i] -= 1
        images[i] = np.random.default_rng(0).standard_normal((64, 5, 7, 3)).astype("float32")[i]


def test_every_channel_is_looked_at() -> None:
    """Spacing is odd, so a change of one channel of 8, 16, 24 is met too."""
    for channels in (8, 16, 24, 64):
        array = numbers((4, 32, 32, channels), "float32")
        before = stamp(array)
        seen = 0
        for c in range(channels):
            array[..., c] += 1
            seen += stamp(array) != before
            array[..., c] -= 1
        assert seen == channels


def test_another_shape_or_dtype_is_seen() -> None:
    array = numbers((4, 6), "float32")
    others = (array.reshape(6, 4), array.astype("float64"), array.astype(">f4"), array.view("int32"), array[:, :5])
    assert all(stamp(other) != stamp(array) for other in others)


def test_a_single_element_among_many_is_not_seen_as_the_module_says() -> None:
    array = numbers((100, 100), "float32")
    before = stamp(array)
    array[0, 1] += 1
    assert stamp(array) == before


@pytest.mark.parametrize("optimizer", [SGD(1e-4), Adam(1e-5)])
def test_a_step_and_eight_bits_are_seen_in_every_parameter(optimizer: Any) -> None:
    net = trained(minitl.networks.digits_irb(num_classes=3, width=0.5), "ft-all")
    images, labels = batch(net, n=4, resolution=16, classes=3)
    _, _, gradients = loss_and_gradients(net, images, labels)
    parameters = net.trained_parameters()
    before = {name: stamp(array) for name, array in parameters.items()}
    optimizer.step(parameters, gradients)
    assert [name for name, array in parameters.items() if stamp(array) == before[name]] == []
    before = {p.name: stamp(p.value) for p in net.parameters() if p.value.ndim > 1}
    trained(net, "ft-last", quantised=True)
    same = [p.name for p in net.parameters() if p.value.ndim > 1 and stamp(p.value) == before[p.name]]
    assert same == ["classifier.1.weight"]


@pytest.mark.parametrize(
    ("method", "checkpoint"), [("mobiletl", False), ("mobiletl", True), ("mobiletl-recompute", False)]
)
def test_every_trained_parameter_is_looked_at_again_also_where_the_forward_pass_runs_twice(
    method: str, checkpoint: bool
) -> None:
    net = trained(minitl.networks.digits_irb(num_classes=3, width=0.5), method, 2, checkpoint=checkpoint)
    images, labels = batch(net, n=4, resolution=16, classes=3)
    for name, array in net.trained_parameters().items():
        tape, before = Tape(), array.copy()
        loss = net.loss(tape, net(tape, images), labels)
        array += 1
        with pytest.raises(UsageError, match=f"the parameter {name} changed between"):
            tape.backward(loss)
        array[...] = before
