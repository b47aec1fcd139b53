"""Image files, through Pillow: a few well-known formats, within a size, upright, on white."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
PILLOWS = r"PIL\."  # modules
WHITE = (255, 255, 255, 255)


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
    _hush()
    with open_file(path) as file:
        try:
            with library.open(file, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels, at most {MOST_PIXELS:,} are read")
                if image.mode in ("I", "F") and image.format != "PPM":  # in whose files I is 0 to 65535, too
                    raise ValueError(f"pixels of 32 bits (mode {image.mode})")
                yield image
        except Exception as error:  # Pillow raises many kinds on broken files; none of them is minitl's
            told = " ".join(str(error).replace(repr(file), "").split())[:200] or type(error).__name__
            raise DataError(f"{NO_IMAGE}{told}", layer=str(path), remedy="remove it, or save it anew") from None


def _hush() -> None:
    """From now on ignore what Pillow warns of: broken metadata, which are not used.

    (`warnings.catch_warnings` is for one thread alone: of several, the last to leave brings back what another had set.)
    """
    if ("ignore", None, Warning, re.compile(PILLOWS), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=PILLOWS)


def _pixels(library: Any, image: Any) -> Array:
    from PIL.ImageOps import exif_transpose

    upright = exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright, np.float64) / 257
        return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    if upright.has_transparency_data:
        upright = library.alpha_composite(library.new("RGBA", upright.size, WHITE), upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))
