"""Images of one's own: readers, split, preprocessing, augmentation, batches. Only what is used is in memory."""

from pathlib import Path

import numpy as np

from minitl.data.cifar import is_cifar, read_cifar
from minitl.data.folder import read_folder
from minitl.data.idx import is_idx, read_idx
from minitl.data.npz import read_npz
from minitl.data.source import Source
from minitl.errors import DataError


def load(path: Path | str, *, least_classes: int = 2) -> Source:
    """The labelled images at `path`: a folder per class, an `.npz`, CIFAR's binary files, or IDX.

    Raises DataError, also where the images are of fewer than `least_classes`: of one class alone nothing can be learnt,
    but a model can be judged by its images.
    """
    source = _read(Path(path))
    present = [source.classes[label] for label in np.unique(source.labels)]
    if len(present) < least_classes:
        expected, got = f"images of at least {least_classes} classes", ", ".join(present)
        raise DataError(layer=str(path), expected=expected, got=f"those of {got} alone")
    return source


def _read(path: Path) -> Source:
    try:
        folder, there = path.is_dir(), path.exists()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        folder = there = False
    if not there:
        raise DataError("there is no such file or folder", layer=str(path))
    if folder and is_cifar(path):
        return read_cifar(path)
    if is_idx(path):
        return read_idx(path)
    if folder:
        return read_folder(path)
    if path.suffix == ".npz":
        return read_npz(path)
    raise DataError(
        layer=str(path), expected="a folder per class, an .npz, or a folder of CIFAR's or IDX files", got="another file"
    )


__all__ = ["Source", "load"]
