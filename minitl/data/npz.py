"""NumPy archives (`.npz`): `images` (N, H, W, 3), (N, H, W, 1) or (N, H, W), `labels` (N,), perhaps `classes`.

The names of Keras' archives (`x_train`, `y_train`, `x_test`, `y_test`) and of MedMNIST's
(`train_images`, `train_labels`, `val_...`, `test_...`) are known too; what is named `val` or
`test` is held out. Pixels are uint8, or floating point from 0 to 1. Nothing is ever unpickled.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from minitl.arrays import Array, Shape, size
from minitl.data.files import open_file, size_of, spool
from minitl.data.records import Records, RecordSource
from minitl.data.source import MOST_CLASSES, check_labels
from minitl.errors import DataError

PAIRS = (  # images, labels, held out
    ("images", "labels", False),
    ("x_train", "y_train", False),
    ("x_test", "y_test", True),
    ("train_images", "train_labels", False),
    ("val_images", "val_labels", True),
    ("test_images", "test_labels", True),
)
COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes
LOCAL_HEADER, MOST_BYTES_A_NAME = 30, 1024


@dataclass(frozen=True)
class Member:
    """An array of the archive: its values begin at byte `offset` of `file`."""

    where: str
    file: BinaryIO
    offset: int
    shape: Shape
    dtype: np.dtype[Any]

    def load(self) -> Array:
        """All of it."""
        self.file.seek(self.offset)
        raw = self.file.read(size(self.shape) * self.dtype.itemsize)
        return np.frombuffer(raw, self.dtype).reshape(self.shape)


def read_npz(path: Path) -> RecordSource:
    """The images and labels of the archive. Raises DataError."""
    file = open_file(path)
    try:
        archive = zipfile.ZipFile(file)
        stored = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except Exception as error:  # zipfile raises several kinds on broken archives
        raise DataError(f"is not an .npz archive: {error}", layer=str(path)) from None
    found = [pair for pair in PAIRS if pair[0] in stored and pair[1] in stored]
    if not found:
        expected = "arrays `images` and `labels` (or x_train, y_train; train_images, train_labels)"
        raise DataError(layer=str(path), expected=expected, got=", ".join(sorted(stored)[:8]) or "none")
    parts = [_images(_member(archive, stored[images], file, path)) for images, _, _ in found]
    raw = [_labels(_member(archive, stored[labels], file, path), part.count)
           for (_, labels, _), part in zip(found, parts, strict=True)]  # fmt: skip
    names = _names(_member(archive, stored["classes"], file, path)) if "classes" in stored else None
    joined = np.concatenate(raw)
    if joined.dtype.kind == "U":
        names, joined = _by_name(joined, names, path)
    labels, classes = check_labels(joined, names, str(path))
    test = np.repeat([held for _, _, held in found], [part.count for part in parts])
    return RecordSource(parts, labels, classes, test if 0 < test.sum() < len(test) else None)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO, path: Path) -> Member:
    """The array's header, checked against the archive's sizes, and a file to read it from anywhere."""
    where = f"{path}: {info.filename}"
    try:
        with archive.open(info) as stream:
            version = npy.read_magic(stream)
            if version != (1, 0) or info.compress_type not in COMPRESSION:  # others may ask for gigabytes at once
                raise ValueError(f"format {version}, compression {info.compress_type}")
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
            header = stream.tell()
            nbytes = size(shape) * dtype.itemsize
            if dtype.hasobject or fortran or dtype.kind not in "uifU" or info.file_size != header + nbytes:
                raise ValueError(f"{dtype} {shape}{', Fortran order' * fortran}, {info.file_size - header} bytes")
            if info.compress_type != zipfile.ZIP_STORED:
                return Member(where, spool(stream, nbytes, where), 0, shape, dtype)
    except DataError:
        raise
    except Exception as error:  # zipfile, the decompressors and the header's parser raise many kinds
        raise DataError(
            layer=where, expected="a plain array of numbers in C order", got=" ".join(str(error).split())[:200]
        ) from None
    return Member(where, file, _start(file, info, where) + header, shape, dtype)


def _start(file: BinaryIO, info: zipfile.ZipInfo, where: str) -> int:
    """Where a stored member's bytes begin: after its local header, name and extra field."""
    file.seek(info.header_offset)
    local = file.read(LOCAL_HEADER)
    start = info.header_offset + LOCAL_HEADER + int.from_bytes(local[26:28], "little")
    start += int.from_bytes(local[28:30], "little")
    if start + info.file_size > size_of(file):
        raise DataError("ends beyond the file", layer=where)
    return start


def _images(member: Member) -> Records:
    count, *shape = member.shape or (0,)
    good = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    if not good or not (member.dtype == np.uint8 or member.dtype.kind == "f"):
        raise DataError(
            layer=member.where,
            expected="images (N, H, W, 3), (N, H, W, 1) or (N, H, W), uint8 or floating point from 0 to 1",
            got=f"{member.dtype.name} {member.shape}",
            remedy="arrays are channels last (NHWC)",
        )
    return Records(member.file, member.where, count, tuple(shape), offset=member.offset, dtype=member.dtype)


def _labels(member: Member, count: int) -> Array:
    if member.shape not in ((count,), (count, 1)) or member.dtype.itemsize > MOST_BYTES_A_NAME:
        got = f"{member.dtype.name} {member.shape}"
        raise DataError(layer=member.where, expected=f"{count} labels, integers or short names", got=got)
    return member.load().reshape(-1)


def _names(member: Member) -> tuple[str, ...]:
    short = member.dtype.kind == "U" and member.dtype.itemsize <= MOST_BYTES_A_NAME
    if not short or len(member.shape) != 1 or member.shape[0] > MOST_CLASSES:
        raise DataError(layer=member.where, expected="class names (K,)", got=f"{member.dtype.name} {member.shape}")
    return _texts(member.load(), member.where)


def _by_name(labels: Array, names: tuple[str, ...] | None, path: Path) -> tuple[tuple[str, ...], Array]:
    """Labels that are names, as indices into `names`, by default all that occur, sorted."""
    occurring, index = np.unique(labels, return_inverse=True)
    found = _texts(occurring, str(path))
    names = names or found
    if not set(found) <= set(names):
        raise DataError(layer=str(path), expected=f"labels among {', '.join(names[:8])}", got=", ".join(found[:8]))
    return names, np.array([names.index(name) for name in found], np.int64)[index]


def _texts(array: Array, where: str) -> tuple[str, ...]:
    try:
        texts = tuple(str(text) for text in array)
        " ".join(texts).encode()
    except ValueError:  # code points that are none
        raise DataError("holds names that are not text", layer=where) from None
    return texts
