"""The check of a gradient by differences, as tutorial 1 ends with it."""

import numpy as np


def check_gradient(forward, backward, x, rng):
    """Whether `backward(kept, gy)` is the slope of `forward(x, kept)`, along a random direction t.

    The slope of sum(gy y) must be <gx, t>, within 1e-6 of |gx| |t|.
    """
    kept = {}
    y = forward(x, kept)
    gy, t, d = rng.standard_normal(y.shape), rng.standard_normal(x.shape), 1e-5
    gx = backward(kept, gy)
    slope = (gy * (forward(x + d * t, {}) - forward(x - d * t, {}))).sum() / (2 * d)
    return bool(abs((gx * t).sum() - slope) <= 1e-6 * np.linalg.norm(gx) * np.linalg.norm(t))
