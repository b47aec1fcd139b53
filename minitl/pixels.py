"""Pixels as a camera gives them, uint8, and the numbers that they stand for.

    number = (pixel / 255 - mean) / std     in each channel

computed as pixel a - b, where a = 1 / (255 std) and b = mean / std are rounded to the numbers' dtype first, and so is
the product. Only 256 numbers can come of it in a channel: kernels look them up in a table of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minitl.arrays import Array
from minitl.checks import as_number
from minitl.errors import ValueRangeError, brief, unknown

PIXELS = "uint8"


class Normalisation(NamedTuple):
    """Mean and standard deviation of pixels from 0 to 1, one number per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


NORMALISATIONS = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's weights, most of timm's
    "half": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # -1 to 1: Keras' weights, timm's ported from TensorFlow
    "none": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def normalise(pixels: Array, by: Normalisation, dtype: str) -> Array:
    """The numbers, in `dtype`, that uint8 pixels (..., C) stand for."""
    mean, deviation = (np.array(values) for values in by)
    numbers: Array = pixels * (1 / (255 * deviation)).astype(dtype)
    numbers -= (mean / deviation).astype(dtype)
    return numbers


def table(by: Normalisation, dtype: str) -> Array:
    """The number of each pixel value in each channel, (256, C)."""
    return normalise(np.repeat(np.arange(256, dtype=np.uint8)[:, None], len(by.mean), axis=1), by, dtype)


def as_normalisation(given: Any, channels: int, **where: str) -> Normalisation:
    """A preset by its name, or (mean, std) of one number per channel.

    Raises UnknownNameError or ValueRangeError, at the `layer` given.
    """
    if isinstance(given, str):
        if given not in NORMALISATIONS:
            raise unknown("normalisation", given, NORMALISATIONS, **where)
        return NORMALISATIONS[given]
    parts = given if isinstance(given, Sequence) and len(given) == 2 else ()
    numbers = [[as_number(value) for value in part] for part in parts if isinstance(part, Sequence | np.ndarray)]
    mean, std = (tuple(value for value in part if value is not None) for part in (numbers if parts else ((), ())))
    if not len(mean) == len(std) == channels or min(std) <= 0:
        expected = f"(mean, std) of {channels} numbers each, std above 0, or one of {', '.join(NORMALISATIONS)}"
        raise ValueRangeError(op="normalisation", expected=expected, got=brief(repr(given)), **where)
    return Normalisation(mean, std)
