"""Images of one's own: readers, split, preprocessing, augmentation, batches. Only what is used is in memory."""

from pathlib import Path

from minitl.data.cifar import is_cifar, read_cifar
from minitl.data.folder import read_folder
from minitl.data.idx import is_idx, read_idx
from minitl.data.npz import read_npz
from minitl.data.source import Source
from minitl.errors import DataError


def load(path: Path | str) -> Source:
    """The labelled images at `path`: a folder per class, an `.npz`, CIFAR's binary files, or IDX. Raises DataError."""
    path = Path(path)
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
