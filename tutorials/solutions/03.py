"""Solutions of tutorial 3."""

import numpy as np


def pointwise_backward(kept, gy, w):
    """(M, I) = (M, O) (O, I), and (O, I) = (O, M) (M, I)."""
    x = kept["x"]
    gw = gy.reshape(-1, gy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return gy @ w[:, :, 0, 0], gw.reshape(w.shape)


def depthwise_backward(x, w, gy):
    """The loop of the forward pass; the frame of zeros is cut off gx again."""
    (_, height, width, _), k = x.shape, w.shape[2]
    p = k // 2
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    gx, gw = np.zeros_like(padded), np.zeros_like(w)
    for u in range(k):
        for v in range(k):
            gx[:, u : u + height, v : v + width] += w[:, 0, u, v] * gy
            gw[:, 0, u, v] = (padded[:, u : u + height, v : v + width] * gy).sum(axis=(0, 1, 2))
    return gx[:, p : p + height, p : p + width], gw


def strided(x, w):
    """For each tap: every second row and column of the shifted map."""
    (n, height, width, c), k = x.shape, w.shape[2]
    p = k // 2
    high, wide = (height + 1) // 2, (width + 1) // 2
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    y = np.zeros((n, high, wide, c), x.dtype)
    for u in range(k):
        for v in range(k):
            y += w[:, 0, u, v] * padded[:, u : u + 2 * high - 1 : 2, v : v + 2 * wide - 1 : 2]
    return y


def strided_backward(x, w, gy):
    """The same slices, read for gw and written for gx."""
    (_, height, width, _), (_, high, wide, _), k = x.shape, gy.shape, w.shape[2]
    p = k // 2
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    gx, gw = np.zeros_like(padded), np.zeros_like(w)
    for u in range(k):
        for v in range(k):
            tap = slice(None), slice(u, u + 2 * high - 1, 2), slice(v, v + 2 * wide - 1, 2)
            gx[tap] += w[:, 0, u, v] * gy
            gw[:, 0, u, v] = (padded[tap] * gy).sum(axis=(0, 1, 2))
    return gx[:, p : p + height, p : p + width], gw


def kept_by(layers, trained):
    """Its input, where the weight trains; else nothing."""
    return {name: 4 * int(np.prod(shape)) * (name in trained) for name, shape in layers.items()}
