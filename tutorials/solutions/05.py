"""Solutions of tutorial 5."""

import numpy as np


def relu6_backward_from_output(y, gy):
    """The slope is 1 strictly between the ends."""
    return gy * ((y > 0) & (y < 6))


def hard_swish_slope_from_output(y, side):
    """The root, with the sign of its side; the ends apart. Clamped, for y is rounded."""
    root = np.sqrt(np.maximum(9 + 24 * y, 0)) / 6
    slope = np.where(side, root, -root)
    slope[y >= 3] = 1
    slope[(y == 0) & ~side] = 0
    return slope


def best_levels(border):
    """h(-10) = 0 and h(10) = 10, so the rises are h(border) and 10 - h(border)."""
    h = border * min(max(border + 3, 0), 6) / 6
    return h / (border + 10), (10 - h) / (10 - border)


def two_level_error(a, c):
    """Never below 1/2, which a = 0 and c = 1 reach: MobileTL's rule."""
    return 0.5 + 10 * a**2 + 10 * (c - 1) ** 2
