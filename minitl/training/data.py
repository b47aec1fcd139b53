"""Images to train on: the bundled handwritten digits, splitting, shifting and batching."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from minitl.arrays import Array, to_numpy
from minitl.checks import as_count, expect_count
from minitl.errors import DtypeError, ShapeError, UsageError, ValueRangeError, brief, unknown

MEAN, DEVIATION = 4.88, 6.02  # of the raw pixels, 0 to 16, over all ten digits
BACKGROUND = np.float32((0 - MEAN) / DEVIATION)  # what blank paper becomes

Augmentation = Callable[[Array, np.random.Generator], Array]


@dataclass(frozen=True)
class Dataset:
    """Labelled images: `images` (N, H, W, 3) float32, `labels` (N,) int64 into the names in `classes`."""

    images: Array
    labels: Array
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check it; labels and classes may come as lists."""
        object.__setattr__(self, "labels", as_labels(self.labels))
        object.__setattr__(self, "classes", as_names(self.classes))
        if not isinstance(self.images, np.ndarray):
            raise DtypeError(op="Dataset", expected="an array of images", got=type(self.images).__name__)
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ShapeError(
                op="Dataset",
                expected="images (N, H, W, 3) and labels (N,)",
                got=f"{self.images.shape} and {self.labels.shape}",
            )
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            span = f"{self.labels.min()} to {self.labels.max()}"
            remedy = "leave unlabelled images out" if self.labels.min() < 0 else "name all classes"
            raise ValueRangeError(
                op="Dataset", expected=f"labels 0 to {len(self.classes) - 1}", got=span, remedy=remedy
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"<Dataset of {len(self):,} images {shape} {self.images.dtype.name}, {len(self.classes)} classes>"

    def take(self, indices: Array) -> Dataset:
        """The images of these indices (I,), copied, in that order."""
        return Dataset(self.images[indices], self.labels[indices], self.classes)


def as_labels(labels: object) -> Array:
    """Labels as an array of int64; raises DtypeError unless they are integers."""
    array = to_numpy(labels, op="Dataset")
    if array.dtype.kind not in "iu" and array.size:
        raise DtypeError(op="Dataset", expected="integer labels", got=array.dtype.name, remedy="use .astype(int)")
    return array.astype(np.int64, copy=False)


def as_names(classes: object) -> tuple[str, ...]:
    """Names of classes as a tuple of strings; raises UsageError for a number, or a single string."""
    if isinstance(classes, str) or not isinstance(classes, Collection) or getattr(classes, "shape", None) == ():
        remedy = "give their names, as in classes=('cat', 'dog')"
        raise UsageError(op="Dataset", expected="classes to be names", got=brief(repr(classes)), remedy=remedy)
    return tuple(str(name) for name in classes)


def digits(classes: Sequence[int] = range(10), size: int = 24) -> Dataset:
    """The bundled digits of these classes, labelled 0, 1, ... in the order given.

    The 8 x 8 grey images (see digits.txt for their source) are enlarged to size x size,
    repeated over three channels, and scaled by fixed constants to about zero mean and unit
    variance. Raises UnknownNameError for a class that is not a digit, ValueRangeError for a
    class named twice, none at all, or a size below 8.
    """
    classes, size = _expect_digits(classes), expect_count("size", size, least=8, most=1024, op="digits")
    with (resources.files("minitl.training") / "digits.npz").open("rb") as file, np.load(file) as bundle:
        raw, digit_of = bundle["images"], bundle["labels"]
    chosen = np.isin(digit_of, classes)
    new_label = np.full(10, -1, np.int64)
    new_label[list(classes)] = np.arange(len(classes))
    grey = enlarge(enlarge(raw[chosen].astype(np.float64), size, axis=1), size, axis=2)
    scaled = ((grey - MEAN) / DEVIATION).astype(np.float32)
    images = np.repeat(scaled[..., None], 3, axis=3)
    return Dataset(images, new_label[digit_of[chosen]], tuple(str(digit) for digit in classes))


def _expect_digits(classes: Sequence[int]) -> list[int]:
    if isinstance(classes, str) or not isinstance(classes, Collection) or getattr(classes, "shape", None) == ():
        raise UsageError(op="digits", expected="a list of digits", got=brief(repr(classes)))
    chosen = []
    for digit in classes:
        number = as_count(digit)
        if number is None or number > 9:
            raise unknown("class", digit, range(10), op="digits")
        chosen.append(number)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueRangeError(op="digits", expected="at least one class, each named once", got=brief(chosen))
    return chosen


def enlarge(x: Array, size: int, axis: int) -> Array:
    """Linear interpolation of `x` to `size` values along one axis; done on two axes it is bilinear.

    Output i looks at source position s = (i + 1/2) n / size - 1/2, held within 0 to n - 1 (pixel
    centres, edges repeated: `align_corners=False` elsewhere), and is
    (1 - f) x[floor s] + f x[floor s + 1] with f = s - floor s.
    """
    n = x.shape[axis]
    source = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    low = np.minimum(source.astype(np.int64), n - 2)
    weight = (source - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    blend: Array = (1 - weight) * x.take(low, axis) + weight * x.take(low + 1, axis)
    return blend


def split(dataset: Dataset, train: int, seed: int) -> tuple[Dataset, Dataset]:
    """`train` images to learn from, as equally from each class as there are images, and the rest to test on.

    Every class is put in random order; the first of each class are taken, then the second of
    each, and so on until there are `train`. Raises ValueRangeError unless 1 <= train < N.
    """
    if not isinstance(dataset, Dataset):
        raise UsageError(op="split", expected="a Dataset", got=brief(repr(dataset)))
    count = as_count(train, least=1)
    if count is None or count >= len(dataset):
        raise ValueRangeError(
            op="split",
            expected=f"1 to {len(dataset) - 1} training images of {len(dataset)}",
            got=brief(train),
            remedy="at least one image must be left to test on",
        )
    order = np.random.default_rng(expect_count("seed", seed, least=0, op="split")).permutation(len(dataset))
    turn = np.empty(len(dataset), np.int64)  # turn[i]: how many of its class come before order[i]
    for label in range(len(dataset.classes)):
        members = dataset.labels[order] == label
        turn[members] = np.arange(members.sum())
    taken = order[np.argsort(turn, kind="stable")]
    return dataset.take(np.sort(taken[:count])), dataset.take(np.sort(taken[count:]))


def shift(images: Array, rng: np.random.Generator, most: int = 2) -> Array:
    """Move each image (N, H, W, C) by up to `most` pixels up, down, left and right, at random.

    What moves in from outside is blank paper, `BACKGROUND`. Same dtype, new array.
    """
    n, h, w, _ = images.shape
    frame = ((0, 0), (most, most), (most, most), (0, 0))
    padded = np.pad(images, frame, constant_values=BACKGROUND)
    top, left = rng.integers(0, 2 * most + 1, size=(2, n, 1))
    rows, columns = top + np.arange(h), left + np.arange(w)
    moved: Array = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def spans(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Where the batches of one epoch start and stop.

    The last batch is smaller where `count` is not a multiple, and is dropped if a single image
    would be left over: on a map of one pixel that is one value a channel, of which a batch norm
    cannot take the variance, and elsewhere it is one image's noise for a whole step.
    """
    batch_size = expect_count("batch_size", batch_size, op="batches")
    cut = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    left_over = len(cut) > 1 and count % batch_size == 1 and batch_size > 1
    return cut[:-1] if left_over else cut


def batches(
    dataset: Dataset, batch_size: int, rng: np.random.Generator, augment: Augmentation | None = None
) -> Iterator[tuple[Array, Array]]:
    """One epoch of (images, labels) in an order drawn from `rng`, which `augment` draws from too.

    Call again with the same `rng` for the next epoch: another order. Which images a batch
    dropped by `spans` holds changes with it.
    """
    order = rng.permutation(len(dataset))
    for start, stop in spans(len(dataset), batch_size):
        images, labels = dataset.images[order[start:stop]], dataset.labels[order[start:stop]]
        yield (augment(images, rng) if augment else images), labels
