"""Images in pixels, uint8: the numbers that they stand for give the same bits, and take four times the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import as_pixels, batch, needs_the_compiler, noise, stir, trained
from scripts import run_script

import minitl
from minitl import ops
from minitl.accounting import ledger, measure, predict, timeline
from minitl.accounting.array_memory import counting
from minitl.arrays import Array
from minitl.data.preprocess import Preprocessing
from minitl.errors import MinitlError
from minitl.fused import plan
from minitl.layers import LayerPlan
from minitl.pixels import NORMALISATIONS, Normalisation, as_normalisation, normalise
from minitl.tape import Tape

OWN = ((0.1, 0.2, 0.9), (0.3, 0.25, 1.5))


def built(name: str, method: str, dtype: str = "float32", **options: Any) -> Any:
    return stir(trained(minitl.networks.get(name, num_classes=5, dtype=dtype, **options), method))


def step(model: Any, images: Array, *, fused: bool = True) -> dict[str, bytes]:
    """The bytes of all that a step gives."""
    tape = Tape(fused=fused)
    logits = model(tape, images)
    gradients = tape.backward(model.loss(tape, logits, np.arange(len(images))))
    return {
        name: array.tobytes() for name, array in {"logits": logits.value, **gradients, **model.state_dict()}.items()
    }


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("method", "dtype", "padding", "by"),
    [
        ("ft-all", "float32", "symmetric", "imagenet"),
        ("ft-all", "float64", "same", OWN),
        ("mobiletl", "float32", "same", OWN),
        ("ft-last", "float64", "symmetric", "half"),
    ],
)
def test_a_step_gives_the_bits_of_the_numbers(fused: bool, method: str, dtype: str, padding: str, by: Any) -> None:
    pixels = as_pixels(noise((3, 33, 28, 3), dtype=dtype))
    models = [built("mobilenet_v3_small", method, dtype, width=0.25, padding=padding) for _ in range(2)]
    models[0].normalisation = by
    numbers = normalise(pixels, as_normalisation(by, 3), dtype)
    assert step(models[0], pixels, fused=fused) == step(models[1], numbers, fused=fused)


@needs_the_compiler
def test_the_numbers_are_the_data_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pixel value; and a table that is wrong in one place is seen."""
    values = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    for name, (mean, std) in NORMALISATIONS.items():
        numbers = Preprocessing(16, name).normalise(values, "float32")
        assert np.allclose(numbers, (values / 255 - mean) / std, rtol=0, atol=4e-7)
    model = built("digits_irb", "ft-last")
    model.normalisation = "none"
    right = step(model, values)["logits"]
    assert right == step(model, Preprocessing(16, "none").normalise(values, "float32"))["logits"]
    table = plan.table

    def wrong(by: Normalisation, dtype: str) -> Array:
        numbers = table(by, dtype)
        numbers[255, 2] += 1
        return numbers

    monkeypatch.setattr(plan, "table", wrong)
    assert step(model, values)["logits"] != right


def test_without_the_compiler_too() -> None:
    script = """
from test_pixels import OWN, as_pixels, as_normalisation, built, noise, normalise, step
pixels = as_pixels(noise((2, 9, 9, 3), dtype="float32"))
model, other = (built("digits_irb", "ft-all") for _ in range(2))
model.normalisation = OWN
print(step(model, pixels) == step(other, normalise(pixels, as_normalisation(OWN, 3), "float32")))
"""
    assert run_script(script, path=__file__.rpartition("/")[0], NUMBA_DISABLE_JIT="1").split() == ["True"]


@needs_the_compiler
@pytest.mark.parametrize("method", ["ft-all", "ft-bias", "ft-last"])
def test_what_is_kept_and_the_peak_are_predicted(method: str) -> None:
    model = built("mobilenet_v2", method, width=0.25)
    model.normalisation = OWN
    size = {"batch": 4, "resolution": 96}
    got, numbers, count = measure(model, **size, pixels=True), measure(model, **size), 4 * 96 * 96 * 3
    assert got.held_bytes == got.traced_bytes == predict(model, **size, pixels=True).kept_bytes
    assert got.held_bytes == numbers.held_bytes - (3 * count if method == "ft-all" else 0)
    for m in (got, numbers):
        assert m.traced_peak_bytes <= m.predicted_peak_bytes <= m.traced_peak_bytes + 2**14
    assert got.traced_peak_bytes < numbers.traced_peak_bytes - 2.5 * count
    alive = timeline(model, **size, pixels=True).buffers
    assert [b.dtype for b in alive if b.shape == (4, 96, 96, 3)] == ["uint8"], "a float copy of the batch"
    if method == "ft-all":
        tape = Tape()
        model(tape, as_pixels(noise((4, 96, 96, 3), dtype="float32")))
        row = next(row for row in ledger(tape).rows if row.tensor == "x")
        assert (row.layer, row.op, row.dtype, row.bits) == ("features.0.0", "conv", "uint8", 8)
        assert (row.bytes, row.needed_for) == (count, ("grad_weight",))


@needs_the_compiler
def test_an_op_by_itself_makes_numbers_of_few_samples_at_a_time() -> None:
    """The workspace foreseen is what is taken, far below a float image of all."""
    rng = np.random.default_rng(0)
    x, weight = rng.integers(0, 256, (6, 64, 64, 3), np.uint8), np.ones((8, 3, 3, 3), np.float32)
    attrs, needs = {"stride": 2, "normalisation": NORMALISATIONS["imagenet"]}, (False, True)
    cost = ops.conv.cost((x.shape, weight.shape), "float32", attrs=attrs, needs=needs)
    peaks = []
    for _ in range(2):  # the first compiles
        with counting() as memory:
            y, saved = ops.conv.forward(x, weight, attrs=attrs, needs=needs)
            peaks = [memory.peak - y.nbytes]
            memory.reset_peak()
            gradients = ops.conv.backward(saved, y, attrs=attrs, needs=needs, params=[weight])
            peaks.append(memory.peak - y.nbytes)
    assert gradients[1] is not None
    for taken, foreseen in zip(peaks, (cost.forward_workspace, cost.backward_workspace + weight.nbytes), strict=True):
        assert taken - 4096 <= foreseen <= taken + 8192 < x.nbytes


def ruled(model: Any) -> Any:
    model.stem.conv.apply(LayerPlan(train=frozenset({"weight"}), rule="quantised8"))
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: built("digits_irb", "ft-all"), "got uint8; set the network's normalisation to 'imagenet' or (mean"),
        (lambda: ruled(built("digits_irb", "ft-all")), "the rule quantised8 cannot read pixels; normalise the images"),
        (lambda: built("mobilenet_v2", "rep-net", width=0.25), "a side module that reads the image cannot read pix"),
    ],
)
def test_pixels_are_refused(make: Any, words: str) -> None:
    model = make()
    model.normalisation = None if "set the" in words else "imagenet"
    images = as_pixels(noise((2, 64, 64, 3), dtype="float32"))
    with pytest.raises(MinitlError) as caught:
        model(Tape(), images)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "given",
    ["imagenett", (), 3, ((0, 0, 0),), ((0, 0, 0), (1, 1)), ((0, 0, 0), (1, 1, 0)), ((0, 0, np.nan), (1, 1, 1))],
)
def test_no_normalisation_is_made_of_something_else(given: Any) -> None:
    model = built("digits_irb", "ft-last")
    with pytest.raises(MinitlError, match="digits_irb"):
        model.normalisation = given
    assert model.normalisation is None
    with pytest.raises(MinitlError, match="set a network's normalisation"):
        predict(model, batch=2, resolution=24, pixels=True)


def test_pixels_that_change_before_backward_are_seen() -> None:
    model = built("digits_irb", "ft-all")
    model.normalisation = "half"
    images, labels = batch(model, resolution=16)
    tape, images = Tape(), as_pixels(images)
    loss = model.loss(tape, model(tape, images), labels)
    images += 1
    with pytest.raises(MinitlError, match="the images changed between"):
        tape.backward(loss)
