"""Solutions of tutorial 4."""

import numpy as np


def batch_norm_backward(kept, gy, gamma):
    """Both means are needed for gamma and beta anyway."""
    x_hat, m = kept["x_hat"], gy.size / gy.shape[-1]
    gbeta = gy.sum(axis=(0, 1, 2))
    ggamma = (gy * x_hat).sum(axis=(0, 1, 2))
    gx = gamma * kept["inv_std"] * (gy - gbeta / m - x_hat * ggamma / m)
    return gx, ggamma, gbeta


def frozen_norm(x, p, kept):
    """A straight line per channel; nothing to keep."""
    scale = p["weight"] / np.sqrt(p["running_var"] + 1e-3)
    return (x - p["running_mean"]) * scale + p["bias"]


def frozen_norm_backward(kept, gy, p):
    """The slope of the line, and a sum."""
    scale = p["weight"] / np.sqrt(p["running_var"] + 1e-3)
    return gy * scale, gy.sum(axis=(0, 1, 2))


def fold(w, p):
    """The scale belongs to the output channels, the first axis of w."""
    scale = p["weight"] / np.sqrt(p["running_var"] + 1e-3)
    return w * scale[:, None, None, None], p["bias"] - p["running_mean"] * scale
