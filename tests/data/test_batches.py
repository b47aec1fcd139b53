"""Split, preprocessing, augmentation and batches."""

from __future__ import annotations

import json
from pathlib import Path

import makers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl import data
from minitl.data.augment import KINDS, Augmentation, shifted
from minitl.data.batches import Part
from minitl.data.preprocess import FITS, Preprocessing
from minitl.data.split import draw, split
from minitl.errors import DataError, MinitlError
from minitl.pixels import NORMALISATIONS


@given(labels=st.lists(st.integers(0, 4), min_size=5, max_size=80), seed=st.integers(0, 99))
def test_a_fifth_is_held_out_of_each_class_in_proportion(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    held = draw(array, 0.2, seed)
    assert held.sum() == round(0.2 * len(array))
    for label in set(labels):
        assert abs(held[array == label].sum() - 0.2 * (array == label).sum()) <= 1
    assert np.array_equal(held, draw(array, 0.2, seed))


def test_another_seed_holds_out_others() -> None:
    labels = np.repeat(np.arange(4), 50)
    assert not np.array_equal(draw(labels, 0.2, 0), draw(labels, 0.2, 1))


@pytest.mark.parametrize("fraction", [0, 1, -1, 0.01, float("nan"), 0.99])
def test_a_part_of_nothing_is_refused(fraction: float) -> None:
    with pytest.raises(MinitlError, match=r"images both to train on and to test on, got .*; give more images"):
        draw(np.zeros(10, int), fraction, 0)


def test_so_many_of_each_class_are_trained_on_and_the_rest_is_held_out(tmp_path: Path) -> None:
    images, labels = makers.pictures(8, size=4)
    source = data.load(makers.npz(tmp_path / "a.npz", images, labels))
    train, held = split(source, 0.2, 1, per_class=3)
    assert np.bincount(labels[train]).tolist() == [3, 3, 3]
    assert sorted([*train, *held]) == list(range(24))
    assert not np.array_equal(train, split(source, 0.2, 2, per_class=3)[0])
    source.held_out = np.arange(24) % 8 < 2  # the data's own part stays as it is
    own, tested = split(source, 0.2, 1, per_class=3)
    assert np.bincount(labels[own]).tolist() == [3, 3, 3]
    assert np.array_equal(tested, np.flatnonzero(source.held_out))
    assert not source.held_out[own].any()
    with pytest.raises(MinitlError, match="expected 7 images of each class to train on, got 6"):
        split(source, 0.2, 1, per_class=7)
    source.held_out = None
    with pytest.raises(MinitlError, match="expected images that are left to test on"):
        split(source, 0.2, 1, per_class=8)


def test_normalisation_is_that_of_torchvision() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    for name, (mean, deviation) in NORMALISATIONS.items():
        got = Preprocessing(4, name).normalise(pixels, "float32")
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, (pixels / 255 - mean) / deviation, rtol=1e-5, atol=1e-6)


def test_crop_pad_and_stretch() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, :5], image[:, 15:] = 100, 200  # a third of it to the left, and to the right
    crop, pad, stretch = (Preprocessing(10, fit=fit).resize(image)[..., 0] for fit in ("crop", "pad", "stretch"))
    assert not crop.any()
    assert pad.shape == stretch.shape == (10, 10)
    assert pad[0].tolist() == pad[9].tolist()  # the border is repeated up and down
    assert pad[0, 0] == stretch[0, 0] == 100
    assert Preprocessing(5, zoom=0.5).resize(np.eye(20, dtype=np.uint8)[..., None].repeat(3, 2) * 255).shape == (
        5,
        5,
        3,
    )


def test_an_image_of_the_right_size_is_taken_as_it_is() -> None:
    images, _ = makers.pictures(2, size=8)
    assert all(np.array_equal(Preprocessing(8).resize(image), image) for image in images)


def test_resizing_averages_what_falls_together() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    means = image[:, 8:40].reshape(4, 8, 4, 8, 3).mean((1, 3))
    assert np.abs(Preprocessing(4).resize(image) - means).max() < 30  # of values that vary by 74


def test_a_shift_repeats_the_border() -> None:
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1)
    rng = np.random.default_rng(3)
    for _ in range(20):
        moved = shifted(image, rng, 2)[..., 0]
        down, right = divmod(int(moved[2, 2]), 5)
        assert np.array_equal(np.diff(moved[:, 2]) == 0, [i < 2 - down or i >= 6 - down for i in range(4)])
        assert abs(down - 2) <= 2
        assert abs(right - 2) <= 2


@given(kinds=st.lists(st.sampled_from(KINDS), unique=True), seed=st.integers(0, 9))
def test_an_augmented_image_is_an_image(kinds: list[str], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (9 + seed, 17, 3), np.uint8)
    for fit in ("crop", "pad", "stretch"):
        got = Augmentation(tuple(kinds))(image, Preprocessing(8, fit=fit), np.random.default_rng(seed))
        assert (got.shape, got.dtype.name) == ((8, 8, 3), "uint8")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_a_random_crop_may_be_of_any_part_of_what_is_used(shape: tuple[int, int], fit: str) -> None:
    """Both halves of the image, along either axis, are seen alike on average."""
    rng, preprocessing = np.random.default_rng(0), Preprocessing(16, fit=fit)
    for axis in (0, 1):
        dark, light = np.array_split(np.zeros((*shape, 3), np.uint8), 2, axis)
        image = np.concatenate([dark, light + 255], axis)
        crops = [Augmentation(("crop",))(image, preprocessing, rng).mean() for _ in range(200)]
        assert abs(np.mean(crops) - preprocessing.resize(image).mean()) < 12  # of 255; one side alone is 100 off


def test_flips_are_drawn_half_of_the_time() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, 2)
    flip, rng = Augmentation(("flip",)), np.random.default_rng(0)
    flipped = [np.array_equal(flip(image, Preprocessing(4), rng), image[:, ::-1]) for _ in range(200)]
    assert 70 < sum(flipped) < 130


def part(tmp_path: Path, augmentation: str = "flip,shift") -> Part:
    source = data.load(makers.npz(tmp_path / "a.npz", *makers.pictures()))
    return Part(source, np.arange(2, 17), Preprocessing(16), Augmentation.parse(augmentation))


def test_what_an_image_becomes_depends_on_seed_epoch_and_image_alone(tmp_path: Path) -> None:
    one = part(tmp_path)
    whole = dict(zip(range(2, 17), next(one.batches([one.indices], seed=1, epoch=2))[0], strict=True))
    for images, index in zip(next(one.batches([np.array([9, 4])], 1, 2))[0], (9, 4), strict=True):
        assert np.array_equal(images, whole[index])
    assert not np.array_equal(next(one.batches([one.indices], 1, 3))[0], np.stack(list(whole.values())))


def test_an_epoch_has_every_image_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    one = part(tmp_path)
    assert sorted(one.order(0, 1)) == sorted(one.order(0, 2)) == one.indices.tolist()
    assert one.order(0, 1).tolist() != one.order(0, 2).tolist() != one.order(1, 2).tolist()


def test_batches_are_all_of_the_part(tmp_path: Path) -> None:
    one = part(tmp_path, "none")
    batches = list(one.in_order(4))
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 3]
    assert np.concatenate([labels for _, labels in batches]).tolist() == one.source.labels[2:17].tolist()


def test_a_broken_image_ends_the_batches_with_its_error(tmp_path: Path) -> None:
    images = makers.pictures()[0] / 255
    images[9] *= 2
    source = data.load(makers.npz(tmp_path / "b.npz", images, makers.pictures()[1]))
    with pytest.raises(DataError, match="image 9"):
        list(Part(source, np.arange(18), Preprocessing(24)).in_order(5))


@pytest.mark.parametrize("changes", [{"resolution": 0}, {"resolution": True}, {"normalisation": "x"}, {"fit": "x"},
                                     {"zoom": 0.0}, {"resolution": 10**9}, {"zoom": "1"}])  # fmt: skip
def test_preprocessing_refuses_what_it_cannot_do(changes: dict[str, object]) -> None:
    with pytest.raises(MinitlError):
        Preprocessing(**{"resolution": 8, **changes})


def test_preprocessing_survives_being_stored() -> None:
    one = Preprocessing(96, "half", "pad", 0.875)
    assert Preprocessing.from_json(one.to_json()) == one
    assert one.to_json()["mean"] == [0.5, 0.5, 0.5]
    assert json.dumps(Preprocessing(np.int64(96)).to_json()) == json.dumps(Preprocessing(96).to_json())
