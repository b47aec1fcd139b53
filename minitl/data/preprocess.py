"""From an image of any size to a network's input. What is done is stored with the model, and done alike ever after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.checks import expect_count
from minitl.data.image import pillow
from minitl.errors import ValueRangeError, unknown
from minitl.pixels import NORMALISATIONS, normalise

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image

LARGEST_RESOLUTION = 1 << 12
FITS = ("crop", "pad", "stretch")
SOURCES = {"torchvision": "imagenet", "timm": "imagenet", "keras": "half"}  # which weights were trained with which


@dataclass(frozen=True)
class Preprocessing:
    """Resize to `resolution` x `resolution`, then (pixel / 255 - mean) / std in each channel.

    `fit` is how an image that is not square becomes so: `crop` takes the largest square in its
    middle, `zoom` of whose side is used (0.875 is torchvision's); `pad` adds the image's own
    border pixels on both sides; `stretch` changes its proportions.
    """

    resolution: int
    normalisation: str = "imagenet"
    fit: str = "crop"
    zoom: float = 1.0

    def __post_init__(self) -> None:
        resolution = expect_count("a resolution", self.resolution, most=LARGEST_RESOLUTION, op="preprocessing")
        object.__setattr__(self, "resolution", resolution)  # in whatever type it came, a plain one is stored
        if self.normalisation not in NORMALISATIONS:
            raise unknown("normalisation", self.normalisation, NORMALISATIONS, op="preprocessing")
        if self.fit not in FITS:
            raise unknown("fit", self.fit, FITS, op="preprocessing")
        if not isinstance(self.zoom, int | float) or not 0.1 <= self.zoom <= 1:
            raise ValueRangeError(op="preprocessing", expected="a zoom from 0.1 to 1", got=str(self.zoom))

    def box(self, height: int, width: int) -> Box:
        """The part of an image that is used; of one that is padded, in pixels of the square it becomes."""
        if self.fit == "pad":
            height = width = max(height, width)
        if self.fit != "crop":
            return 0, 0, width, height
        side = max(1.0, self.zoom * min(height, width))
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def resize(self, image: Array, box: Box | None = None) -> Array:
        """That part of an image (H, W, 3), by default `box`, as uint8 (R, R, 3).

        Bilinear, with an average over the pixels that fall together where it becomes smaller.
        """
        if self.fit == "pad":
            image = squared(image)
        height, width, _ = image.shape
        box = box or self.box(height, width)
        if (height, width) == (self.resolution, self.resolution) and box == (0, 0, width, height):
            return image
        library = pillow()
        size = (self.resolution, self.resolution)
        return np.array(library.fromarray(image).resize(size, library.Resampling.BILINEAR, box=box))

    def normalise(self, images: Array, dtype: str) -> Array:
        """Pixels uint8 (N, R, R, 3) as the network's numbers (see `minitl.pixels`)."""
        return normalise(images, NORMALISATIONS[self.normalisation], dtype)

    def to_json(self) -> dict[str, Any]:
        """As it is stored with a model; mean and standard deviation are spelt out for other programs."""
        mean, deviation = NORMALISATIONS[self.normalisation]
        return {**asdict(self), "mean": list(mean), "std": list(deviation)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """What `to_json` gave."""
        return cls(**{name: stored[name] for name in ("resolution", "normalisation", "fit", "zoom")})


def squared(image: Array) -> Array:
    """The image in the middle of a square, its border pixels repeated outwards."""
    height, width, _ = image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(image, ((top, side - height - top), (left, side - width - left), (0, 0)), mode="edge")
