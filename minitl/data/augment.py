"""Augmentation: a little else of the same image, each time it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minitl.arrays import Array
from minitl.data.preprocess import Box, Preprocessing
from minitl.errors import unknown

KINDS = ("flip", "vflip", "shift", "crop")


@dataclass(frozen=True)
class Augmentation:
    """What may be done to an image, drawn anew for every use.

    `flip` mirrors left and right, `vflip` top and bottom, half of the times. `shift` moves by up
    to an eighth of the resolution; what moves in repeats the image's border, so that paper stays
    paper and sky stays sky, whatever the normalisation. `crop` takes a part of 1/2 to all of the
    area, its sides in a proportion of 3/4 to 4/3 (after Szegedy et al. 2015, arXiv:1409.4842).
    """

    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown("augmentation", kind, (*KINDS, "none"))

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read `flip,shift`, or `none`."""
        return cls(() if text == "none" else tuple(text.split(",")))

    def __str__(self) -> str:
        return ",".join(self.kinds) or "none"

    def __call__(self, image: Array, preprocessing: Preprocessing, rng: np.random.Generator) -> Array:
        """An image (H, W, 3) of any size, changed, as uint8 (R, R, 3)."""
        height, width, _ = image.shape
        box = part(preprocessing.box(height, width), rng) if "crop" in self.kinds else None
        small = preprocessing.resize(image, box)
        if "flip" in self.kinds and rng.random() < 0.5:
            small = small[:, ::-1]
        if "vflip" in self.kinds and rng.random() < 0.5:
            small = small[::-1]
        return shifted(small, rng, preprocessing.resolution // 8) if "shift" in self.kinds else small


def part(box: Box, rng: np.random.Generator) -> Box:
    """A random part of the box."""
    left, top, right, bottom = box
    area, proportion = rng.uniform(0.5, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    sides: Sequence[float] = [min(1, float(np.sqrt(area * r))) for r in (proportion, 1 / proportion)]
    width, height = (right - left) * sides[0], (bottom - top) * sides[1]
    x, y = rng.uniform(left, right - width), rng.uniform(top, bottom - height)
    return x, y, min(x + width, right), min(y + height, bottom)


def shifted(image: Array, rng: np.random.Generator, most: int) -> Array:
    """The image moved by up to `most` pixels up, down, left and right, its border repeated."""
    down, right = rng.integers(-most, most + 1, size=2)
    rows, columns = (np.clip(np.arange(n) - by, 0, n - 1) for n, by in zip(image.shape, (down, right), strict=False))
    moved: Array = image[rows[:, None], columns]
    return moved
