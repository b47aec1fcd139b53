"""CIFAR-10 and CIFAR-100 in their own binary version (Krizhevsky 2009, www.cs.toronto.edu/~kriz/cifar.html).

A record is 1 byte of label (CIFAR-100: a coarse, then a fine one, which is used) and 3 x 32 x 32
bytes of pixels: all red ones row by row, then green, then blue. The Python version is a pickle,
which can run any program: it is not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minitl.arrays import Array
from minitl.data.files import inside, open_file, size_of
from minitl.data.records import Records, RecordSource
from minitl.data.source import check_labels
from minitl.errors import DataError

SHAPE, PIXELS = (3, 32, 32), 3072
MOST_NAMES = 1 << 16  # bytes of a file of names
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar(RecordSource):
    """Photographs of 32 x 32 pixels."""

    natural = True


def is_cifar(folder: Path) -> bool:
    """Whether it holds files named as CIFAR's."""
    return bool(_files(folder))


def read_cifar(folder: Path) -> Cifar:
    """The folder's training and test files; the test files are held out. Raises DataError."""
    files = _files(folder)
    fine = files[0].name in ("train.bin", "test.bin")
    parts = [_records(inside(folder, path), 2 if fine else 1) for path in files]
    raw = np.concatenate([_labels(part) for part in parts])
    labels, classes = check_labels(raw, _names(folder, fine), str(folder))
    test = np.repeat([path.name.startswith("test") for path in files], [part.count for part in parts])
    return Cifar(parts, labels, classes, test if 0 < test.sum() < len(test) else None)


def _files(folder: Path) -> list[Path]:
    tens = sorted(folder.glob("data_batch_*.bin")) + sorted(folder.glob("test_batch.bin"))
    return tens or [folder / name for name in ("train.bin", "test.bin") if (folder / name).exists()]


def _records(path: Path, labels: int) -> Records:
    file = open_file(path)
    count, rest = divmod(size_of(file), labels + PIXELS)
    if rest:
        raise DataError(layer=str(path), expected=f"records of {labels + PIXELS} bytes", got=f"{rest} bytes over")
    return Records(file, str(path), count, SHAPE, skip=labels, planar=True)


def _labels(part: Records) -> Array:
    """The last label byte of every record, a few records at a time."""
    labels = []
    while raw := part.file.read(20 * part.stride):
        labels.append(np.frombuffer(raw, np.uint8)[part.skip - 1 :: part.stride].copy())  # not a view, which keeps all
    return np.concatenate(labels)


def _names(folder: Path, fine: bool) -> tuple[str, ...]:
    path = folder / ("fine_label_names.txt" if fine else "batches.meta.txt")
    if path.exists():
        with open_file(inside(folder, path)) as file:
            names = tuple(file.read(MOST_NAMES).decode("utf-8", "replace").split())
        if len(names) == (100 if fine else 10):
            return names
        raise DataError(layer=str(path), expected=f"{100 if fine else 10} names", got=str(len(names)))
    return tuple(map(str, range(100))) if fine else CIFAR10
