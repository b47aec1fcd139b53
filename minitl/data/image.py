"""Image files, through Pillow: a few well-known formats, within a size, upright, on white."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.data.files import open_file
from minitl.errors import DataError, UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no format that starts another program, as EPS does
MOST_PIXELS = 1 << 26  # of one image: 192 MiB as RGB. A small file can claim to be larger than any memory
NO_IMAGE = "is not an image that can be read: "
WHITE = (255, 255, 255, 255)

_warnings, _without = ExitStack(), 0  # how to have them back, and how many do without at the moment
_lock = Lock()


def pillow() -> ModuleType:
    """`PIL.Image`; raises UsageError where it is missing."""
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("images need Pillow", remedy="pip install 'minitl[images]'") from None
    return Image


def read_image(path: Path) -> Array:
    """An image file as uint8 (H, W, 3). Raises DataError.

    It is turned upright as its EXIF data say, 16-bit grey becomes 8-bit, and what is transparent
    shows white. Of several frames, the first is taken.
    """
    with _opened(path) as image:
        return _pixels(pillow(), image)


def check_image(path: Path) -> None:
    """Raise what `read_image` would, in less than half of its time; nothing is kept."""
    try:
        with _opened(path) as image:
            if image.format == "PNG":
                image.verify()  # its checksums
            else:
                image.draft("RGB", (1, 1))  # an eighth of a JPEG's size
                image.load()
    except DataError:
        read_image(path)  # which may be content without what is missing


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The image of a file, its pixels not read yet; whatever is raised about it becomes a DataError."""
    library = pillow()
    with open_file(path) as file, _without_warnings():  # about broken metadata, which are not used
        try:
            with library.open(file, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels, at most {MOST_PIXELS:,} are read")
                if image.mode in ("I", "F"):
                    raise ValueError(f"pixels of 32 bits (mode {image.mode})")
                yield image
        except Exception as error:  # Pillow raises many kinds on broken files; none of them is minitl's
            told = " ".join(str(error).replace(repr(file), "").split())[:200] or type(error).__name__
            raise DataError(f"{NO_IMAGE}{told}", layer=str(path), remedy="remove it, or save it anew") from None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Within it nobody is warned, in no thread.

    `catch_warnings` is for one thread at a time: of two, the last to leave puts back for good what it found, which is
    that nobody is warned.
    """
    global _without
    with _lock:
        if not _without:
            _warnings.enter_context(warnings.catch_warnings(action="ignore"))
        _without += 1
    try:
        yield
    finally:
        with _lock:
            _without -= 1
            if not _without:
                _warnings.close()


def _pixels(library: Any, image: Any) -> Array:
    from PIL.ImageOps import exif_transpose

    upright = exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright, np.float64) / 257
        return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    if upright.has_transparency_data:
        upright = library.alpha_composite(library.new("RGBA", upright.size, WHITE), upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))
