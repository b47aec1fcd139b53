"""IDX, the format of MNIST (yann.lecun.com/exdb/mnist): big-endian sizes, then bytes; perhaps gzipped.

    0, 0, type (8: unsigned byte), number of axes, then each axis as 4 bytes; then the values

Images are (N, H, W), labels (N,). They are found by their names: `...images...` and `...labels...`;
those named `t10k...` or `...test...` are held out.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from minitl.arrays import Array, size
from minitl.data.files import inside, open_file, spool
from minitl.data.records import Records, RecordSource
from minitl.data.source import check_labels
from minitl.errors import DataError

UNSIGNED_BYTE = 8


def is_idx(path: Path) -> bool:
    """Whether it is a file of images named as IDX files are, or a folder that holds some."""
    return bool(_images(path))


def read_idx(path: Path) -> RecordSource:
    """The images of a file or of all such files in a folder, each with its labels. Raises DataError."""
    parts, labels, test = [], [], []
    root = path if path.is_dir() else path.parent
    for images in _images(path):
        part, own = _pair(root, images)
        parts.append(part)
        labels.append(own)
        test.append(np.full(part.count, "t10k" in images.name or "test" in images.name))
    checked, classes = check_labels(np.concatenate(labels), None, str(path))
    held_out = np.concatenate(test)
    return RecordSource(parts, checked, classes, held_out if 0 < held_out.sum() < len(held_out) else None)


def _images(path: Path) -> list[Path]:
    found = sorted(path.glob("*images*idx*")) if path.is_dir() else [path]
    return [file for file in found if "images" in file.name and "idx" in file.name and file.is_file()]


def _pair(root: Path, images: Path) -> tuple[Records, Array]:
    labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    if not labels.exists():
        raise DataError(f"has no {labels.name} beside it", layer=str(images))
    file, (count, height, width), offset = _open(inside(root, images), axes=3)
    part = Records(file, str(images), count, (height, width), offset=offset)
    file, (marked,), offset = _open(inside(root, labels), axes=1)
    if marked != count:
        raise DataError(layer=str(labels), expected=f"{count} labels", got=str(marked))
    with file:
        file.seek(offset)
        raw = file.read(count)
    if len(raw) < count:
        raise DataError(layer=str(labels), expected=f"{count} labels", got=f"{len(raw)} bytes")
    return part, np.frombuffer(raw, np.uint8)


def _open(path: Path, axes: int) -> tuple[BinaryIO, tuple[int, ...], int]:
    """The file, decompressed if need be, the sizes of its axes, and where its values begin."""
    file = open_file(path)
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
    offset = 4 + 4 * axes
    try:
        header = stream.read(offset)
    except Exception as error:  # whatever the decompressor raises
        raise DataError(f"cannot be decompressed: {error}", layer=str(path)) from None
    if len(header) < offset or header[:4] != bytes((0, 0, UNSIGNED_BYTE, axes)):
        got = header[:4].hex(" ") or "nothing"
        raise DataError(layer=str(path), expected=f"an IDX file of bytes with {axes} axes", got=got)
    shape = tuple(int(extent) for extent in np.frombuffer(header, ">u4", axes, 4))
    if not packed:
        return file, shape, offset
    with file:
        return spool(stream, size(shape), str(path)), shape, 0
