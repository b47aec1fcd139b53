"""Images of one size, one record each, in a file: an image is read from its place when it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.data.files import size_of
from minitl.data.source import Source
from minitl.errors import DataError

LARGEST_SIDE = 1 << 14
UINT8: np.dtype[Any] = np.dtype(np.uint8)


@dataclass(frozen=True)
class Records:
    """`count` records of `stride` bytes from byte `offset` on; an image of `shape` begins `skip` bytes into each.

    `shape` is (H, W), (H, W, 1) or (H, W, 3); with `planar`, (3, H, W). Reading does not move the
    file's position, so several threads may.
    """

    file: BinaryIO
    where: str
    count: int
    shape: Shape
    offset: int = 0
    skip: int = 0
    dtype: np.dtype[Any] = UINT8
    planar: bool = False

    def __post_init__(self) -> None:
        height, width = self.shape[-2:] if self.planar else self.shape[:2]
        if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE and self.count >= 1):
            got = f"{self.count} of {height} x {width}"
            raise DataError(layer=self.where, expected=f"images of 1 to {LARGEST_SIDE} pixels a side", got=got)
        needed = self.offset + self.count * self.stride
        if size_of(self.file) < needed:
            raise DataError(layer=self.where, expected=f"{needed:,} bytes", got=f"{size_of(self.file):,}")

    @property
    def stride(self) -> int:
        """Bytes of a record."""
        return self.skip + size(self.shape) * self.dtype.itemsize

    def read(self, index: int) -> Array:
        """Image number `index`, uint8 (H, W, 3)."""
        nbytes = self.stride - self.skip
        raw = os.pread(self.file.fileno(), nbytes, self.offset + index * self.stride + self.skip)
        if len(raw) < nbytes:
            raise DataError(f"ends within image {index}", layer=self.where)
        image = as_uint8(np.frombuffer(raw, self.dtype).reshape(self.shape), f"{self.where}: image {index}")
        if self.planar:
            image = image.transpose(1, 2, 0)
        return np.ascontiguousarray(np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3)))


class RecordSource(Source):
    """Images in one or more files of records."""

    def __init__(
        self, parts: list[Records], labels: Array, classes: tuple[str, ...], held_out: Array | None = None
    ) -> None:
        super().__init__(labels, classes, held_out)
        self.parts, self.ends = parts, np.cumsum([part.count for part in parts])

    def read(self, index: int) -> Array:
        """Image number `index`, uint8 (H, W, 3)."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[number]
        return part.read(index - int(self.ends[number]) + part.count)


def as_uint8(image: Array, where: str) -> Array:
    """Pixels 0 to 255. Floating point pixels are read as 0 to 1, and refused outside; nothing is clipped."""
    if image.dtype == np.uint8:
        return image
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise DataError(
            layer=where, expected="floating point pixels from 0 to 1", got=f"{image.min():g} to {image.max():g}",
            remedy="store raw pixels as uint8: they are normalised when they are used",
        )  # fmt: skip
    pixels: Array = np.rint(image * 255).astype(np.uint8)
    return pixels
