"""Images and labels at the door: what is copied, and what is turned away with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import batch, noise, trained

import minitl
from minitl.arrays import Array
from minitl.errors import DtypeError, MinitlError, ShapeError, ValueRangeError
from minitl.tape import Tape

DATA = noise((4, 6, 6, 3), dtype="float32")


def holed(value: float) -> Array:
    images = DATA.copy()
    images[2, 5, 0, 1] = value
    return images


def test_an_array_that_owns_its_memory_is_taken_as_it_is() -> None:
    assert Tape().images(DATA, 3, "float32").value is DATA


@pytest.mark.parametrize(
    "view",
    [
        DATA[:2], DATA[::2], DATA[:, ::-1], DATA.transpose(0, 2, 1, 3), DATA.reshape(2, 12, 6, 3),
        np.frombuffer(DATA.tobytes(), np.float32).reshape(4, 6, 6, 3), np.asfortranarray(DATA),
    ],
    ids=["slice", "steps", "reversed", "transposed", "reshaped", "frombuffer", "fortran"],
)  # fmt: skip
def test_a_view_is_copied(view: Array) -> None:
    """Kept for backward, it would keep all of what it looks into."""
    value = Tape().images(view, 3, "float32").value
    assert value.base is None
    assert value.flags.c_contiguous
    assert not np.shares_memory(value, view)
    assert np.array_equal(value, view)


def test_images_are_not_written_and_may_be_read_only() -> None:
    model = trained(minitl.networks.digits_irb(), "ft-all")
    images, labels = batch(model, resolution=16)
    before = images.tobytes()
    images.flags.writeable = False
    tape = Tape()
    gradients = tape.backward(model.loss(tape, model(tape, images), labels))
    assert images.tobytes() == before
    assert all(np.isfinite(g).all() for g in gradients.values())


@pytest.mark.parametrize(
    ("images", "kind", "words"),
    [
        (DATA.astype("float64"), DtypeError, "expected a float32 array, got float64; use .astype('float32')"),
        (DATA.astype("float16"), DtypeError, "expected a float32 array, got float16; use .astype('float32')"),
        ((DATA * 9).astype("uint8"), DtypeError, "got uint8; set the network's normalisation to 'imagenet' or (mean"),
        (DATA.astype(">f4"), DtypeError, "expected a float32 array, got float32 of swapped byte order"),
        (DATA.astype(object), DtypeError, "expected a float32 array, got object"),
        (DATA.tolist(), DtypeError, "expected a float32 array, got list; use .astype('float32')"),
        (None, DtypeError, "expected a float32 array, got NoneType"),
        (DATA[0], ShapeError, "expected (N, H, W, 3), none of them 0, got shape (6, 6, 3); arrays are channels last"),
        (DATA.transpose(0, 3, 1, 2), ShapeError, "got shape (4, 3, 6, 6); arrays are channels last (NHWC)"),
        (DATA[..., :1], ShapeError, "expected (N, H, W, 3), none of them 0, got shape (4, 6, 6, 1)"),
        (DATA[:0], ShapeError, "got shape (0, 6, 6, 3)"),
        (DATA[:, :, :0], ShapeError, "got shape (4, 6, 0, 3)"),
        (holed(np.nan), ValueRangeError, "expected finite values, got nan at [2, 5, 0, 1]"),
        (holed(-np.inf), ValueRangeError, "expected finite values, got -inf at [2, 5, 0, 1]"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("training", [True, False])
def test_bad_images(images: Any, kind: type[MinitlError], words: str, training: bool) -> None:
    model = minitl.networks.digits_irb()
    with pytest.raises(kind) as caught:
        model(Tape(training=training), images)
    assert str(caught.value).startswith("digits_irb (images): ")
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        ([0, 1, 10], ValueRangeError, "expected labels from 0 to 9, got 10; build the network with num_classes"),
        ([0, -1, 1], ValueRangeError, "expected labels from 0 to 9, got -1; leave unlabelled images out"),
        ([[0], [1, 2]], DtypeError, "expected an array, got list"),
        ([0.0, 1.0, 2.0], DtypeError, "expected integer labels, got float64; use .astype(int)"),
        ([True, False, True], DtypeError, "expected integer labels, got bool"),
        (["0", "1", "2"], DtypeError, "expected integer labels"),
        ([0, 1], ShapeError, "expected logits (N, K) and labels (N,), got (3, 10) and (2,)"),
        ([[0], [1], [2]], ShapeError, "got (3, 10) and (3, 1)"),
        (1, ShapeError, "got (3, 10) and ()"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_bad_labels(labels: Any, kind: type[MinitlError], words: str, training: bool) -> None:
    model = minitl.networks.digits_irb()
    tape = Tape(training=training)
    logits = model(tape, batch(model, resolution=16)[0])
    with pytest.raises(kind) as caught:
        minitl.cross_entropy(tape, logits, labels)
    assert str(caught.value).startswith("loss (cross_entropy): ")
    assert words in str(caught.value)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64", "int64"])
def test_labels_of_any_integer_kind_are_copied(dtype: str) -> None:
    """A label array changed after the forward pass does not change the gradients."""
    model = trained(minitl.networks.digits_irb(), "ft-last")
    images, labels = batch(model, resolution=16)
    results = []
    for spoil in (False, True):
        tape, mine = Tape(), labels.astype(dtype)
        loss = model.loss(tape, model(tape, images), mine)
        if spoil:
            mine[:] = 9
        results.append(tape.backward(loss)["classifier.1.weight"].tobytes())
    assert results[0] == results[1]
