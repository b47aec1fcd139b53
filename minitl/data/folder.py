"""A folder per class, with image files in it or below it: `photos/cat/1.jpg`, `photos/dog/2.jpg`.

Where the folder holds `train` and `val`, `valid`, `validation` or `test` instead, each with a folder
per class, what is not in `train` is held out. Files that are no images by their name are passed
over, and so is what begins with a dot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from minitl.arrays import Array
from minitl.data.check import expect_images
from minitl.data.files import inside
from minitl.data.image import SUFFIXES, read_image
from minitl.data.source import Source, check_labels
from minitl.errors import DataError
from minitl.files import reason

TEST_PARTS = ("val", "valid", "validation", "test")


class Folder(Source):
    """Image files, found once and opened one at a time."""

    natural = True

    def __init__(
        self, root: Path, files: Sequence[str], labels: Array, classes: Sequence[str], held_out: Array | None
    ) -> None:
        super().__init__(labels, classes, held_out)
        self.root, self.files = root, files

    def read(self, index: int) -> Array:
        """Image number `index`, uint8 (H, W, 3)."""
        return read_image(inside(self.root, self.root / self.files[index]))

    def check(self, tell: Callable[[], None]) -> None:
        """Look into every file."""
        expect_images(self.files, self.root, tell)

    def names(self) -> Sequence[str]:
        """Paths within the folder."""
        return self.files


def read_folder(root: Path) -> Folder:
    """The image files of a folder per class. Raises DataError."""
    parts = _folders(root)
    own_split = "train" in parts and any(part in TEST_PARTS for part in parts)
    tops = [part for part in parts if part == "train" or part in TEST_PARTS] if own_split else [""]
    files = [(top, name, path) for top in tops for name in _folders(root / top) for path in _files(root, top, name)]
    classes = sorted({name for _, name, _ in files})
    if not classes:
        loose = sum(entry.name.lower().endswith(SUFFIXES) for entry in os.scandir(root))
        found, remedy = "none", f"known are {' '.join(SUFFIXES)}"
        if loose:
            found, remedy = f"{loose} images in no folder", "give the folder above"
        raise DataError(layer=str(root), expected="a folder per class, with images in it", got=found, remedy=remedy)
    number = {name: index for index, name in enumerate(classes)}
    labels, _ = check_labels(np.array([number[name] for _, name, _ in files]), classes, str(root))
    held_out = np.array([top != "train" for top, _, _ in files]) if own_split else None
    if held_out is not None and held_out.all():
        raise DataError("holds no image in `train`", layer=str(root))
    return Folder(root, [path for _, _, path in files], labels, classes, held_out)


def _folders(root: Path) -> list[str]:
    """Names of the folders in `root`, sorted."""
    try:
        found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot be read: {reason(error)}", layer=str(root)) from None
    for name in found:
        inside(root, root / name)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"holds a folder whose name is not text: {name!a}", layer=str(root)) from None
    return found


def _files(root: Path, top: str, name: str) -> list[str]:
    """Image files below a class's folder, as paths within `root`, sorted; links to folders are not followed."""
    found = []
    for folder, below, files in os.walk(root / top / name):
        below[:] = sorted(entry for entry in below if not entry.startswith("."))
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                found.append((Path(folder) / file).relative_to(root).as_posix())
    return sorted(found)
