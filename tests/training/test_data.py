import hashlib
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import ShapeError, UnknownNameError, ValueRangeError
from minitl.training.data import BACKGROUND, Dataset, batches, digits, enlarge, shift, spans, split


def numbered(labels):
    """A data set whose images hold their own index."""
    labels = np.asarray(labels, np.int64)
    images = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 1, 1, 3), np.float32)
    return Dataset(images, labels, tuple("abcdefghij"))


def identities(dataset):
    return dataset.images[:, 0, 0, 0].astype(int).tolist()


def test_the_bundled_digits_are_those_of_uci():
    with (resources.files("minitl.training") / "digits.npz").open("rb") as file, np.load(file) as bundle:
        images, labels = bundle["images"], bundle["labels"]
    assert images.shape == (1797, 8, 8)
    assert images.dtype == labels.dtype == np.uint8
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_source_and_the_licence_are_bundled_too():
    text = (resources.files("minitl.training") / "digits.txt").read_text()
    assert "10.24432/C50P49" in text
    assert "CC BY 4.0" in text


def test_digits_have_the_promised_form():
    data = digits([7, 5], size=24)
    assert data.images.shape == (182 + 179, 24, 24, 3)
    assert data.images.dtype == np.float32
    assert data.labels.dtype == np.int64
    assert data.classes == ("7", "5")
    assert np.bincount(data.labels).tolist() == [179, 182]
    assert np.array_equal(data.images[..., 0], data.images[..., 2])


def test_digits_have_about_zero_mean_and_unit_variance():
    images = digits().images
    assert abs(images.mean()) < 0.05
    assert 0.8 < images.std() < 1.05


def test_size_8_is_the_images_themselves():
    with (resources.files("minitl.training") / "digits.npz").open("rb") as file, np.load(file) as bundle:
        raw = bundle["images"]
    assert np.allclose(digits(size=8).images[..., 1] * 6.02 + 4.88, raw, atol=1e-5)
    assert digits(size=8).images.min() == BACKGROUND


@pytest.mark.parametrize("size", [8, 11, 24, 40])
def test_enlarging_is_pytorchs_bilinear_interpolation(size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((3, 8, 8))
    ours = enlarge(enlarge(x, size, axis=1), size, axis=2)
    theirs = torch.nn.functional.interpolate(torch.tensor(x)[None], size=(size, size), mode="bilinear")[0].numpy()
    assert np.allclose(ours, theirs, atol=1e-12)


@given(size=st.integers(8, 50))
def test_enlarging_keeps_a_ramp_a_ramp_and_a_constant_constant(size):
    assert np.allclose(enlarge(np.full((2, 8), 3.0), size, axis=1), 3.0)
    ramp = enlarge(np.arange(8.0), size, axis=0)
    middle = ramp[(ramp > 0) & (ramp < 7)]
    assert np.allclose(np.diff(middle), 8 / size)


@pytest.mark.parametrize("classes", [[10], [0, -1], ["3"]])
def test_unknown_digits_are_refused(classes):
    with pytest.raises(UnknownNameError, match="unknown class"):
        digits(classes)


@pytest.mark.parametrize(("classes", "size"), [([], 24), ([1, 1], 24), ([0, 1], 7)])
def test_impossible_digits_are_refused(classes, size):
    with pytest.raises(ValueRangeError, match="digits: expected"):
        digits(classes, size)


def test_a_data_set_checks_its_arrays():
    images = np.zeros((2, 4, 4, 3), np.float32)
    with pytest.raises(ShapeError):
        Dataset(images, np.zeros(3, np.int64), ("a",))
    with pytest.raises(ValueRangeError, match="labels 0 to 0"):
        Dataset(images, np.array([0, 1]), ("a",))


@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=60), seed=st.integers(0, 9), data=st.data())
def test_a_split_is_a_partition_and_as_even_as_it_can_be(labels, seed, data):
    whole = numbered(labels)
    count = data.draw(st.integers(1, len(labels) - 1))
    train, test = split(whole, count, seed)
    assert len(train) == count
    assert sorted(identities(train) + identities(test)) == list(range(len(labels)))
    assert train.labels.tolist() == [labels[i] for i in identities(train)]
    taken, there = np.bincount(train.labels, minlength=5), np.bincount(labels, minlength=5)
    unfinished = taken[taken < there]
    assert unfinished.size == 0 or taken.max() - unfinished.min() <= 1  # nobody gets two more while another could


def test_a_split_depends_on_its_seed_alone():
    whole = digits([0, 1], size=8)
    one, two, three = (split(whole, 40, seed)[0].images for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)
    assert one.base is None  # not a view that keeps the whole set alive


@pytest.mark.parametrize("train", [0, -1, 3, 4])
def test_a_split_must_leave_something_on_both_sides(train):
    with pytest.raises(ValueRangeError, match=r"1 to 2 training images of 3, got"):
        split(numbered([0, 1, 2]), train, seed=0)


def moved(image, down, right):
    """The slow way, pixel by pixel."""
    h, w, _ = image.shape
    out = np.full_like(image, BACKGROUND)
    for i in range(h):
        for j in range(w):
            if 0 <= i - down < h and 0 <= j - right < w:
                out[i, j] = image[i - down, j - right]
    return out


def test_shift_moves_every_image_by_its_own_few_pixels():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((200, 5, 6, 3)).astype(np.float32)
    shifted = shift(images, np.random.default_rng(1), most=1)
    assert shifted.dtype == np.float32
    seen = set()
    for before, after in zip(images, shifted, strict=True):
        moves = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if np.array_equal(moved(before, d, r), after)]
        assert len(moves) == 1
        seen.add(moves[0])
    assert len(seen) == 9


def test_shift_by_nothing_changes_nothing():
    images = digits([3], size=8).images
    assert np.array_equal(shift(images, np.random.default_rng(0), most=0), images)


@given(count=st.integers(0, 40), batch_size=st.integers(1, 12))
def test_spans_cover_everything_but_a_left_over_single(count, batch_size):
    cut = spans(count, batch_size)
    assert [i for start, stop in cut for i in range(start, stop)] == list(range(cut[-1][1] if cut else 0))
    left_over = count - (cut[-1][1] if cut else 0)
    assert left_over == (1 if batch_size > 1 and count > batch_size and count % batch_size == 1 else 0)
    assert all(stop - start <= batch_size for start, stop in cut)
    assert batch_size == 1 or count <= 1 or all(stop - start > 1 for start, stop in cut)


def test_batches_of_nothing_are_refused():
    with pytest.raises(ValueRangeError, match="expected batch_size of at least 1, got 0"):
        spans(10, 0)


def test_an_epoch_shows_every_image_once_in_another_order_each_time():
    data = numbered([0, 1, 2, 3] * 5)
    rng = np.random.default_rng(0)
    first, second = ([i for x, _ in batches(data, 6, rng) for i in x[:, 0, 0, 0].astype(int)] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    again = [i for x, _ in batches(data, 6, np.random.default_rng(0)) for i in x[:, 0, 0, 0].astype(int)]
    assert again == first


def test_batches_keep_labels_with_their_images_and_augment_the_images():
    data = numbered([0, 1, 2, 3] * 5)
    for images, labels in batches(data, 6, np.random.default_rng(0), augment=lambda x, rng: x + 100):
        assert (images[:, 0, 0, 0].astype(int) - 100) % 4 == pytest.approx(labels)
