"""Solutions of tutorial 11."""

import numpy as np


def hard_swish_exact_backward(x, gy):
    """Three regions; both kinks belong to the outer ones."""
    slope = np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6))
    return gy * slope.astype(x.dtype)


def pack_codes(codes):
    """Four positions at a time, the first in the lowest bits; zeros fill the last byte up."""
    flat = codes.reshape(-1, codes.shape[-1])
    zeros = np.zeros((-len(flat) % 4, flat.shape[1]), np.uint8)
    parts = np.concatenate([flat, zeros]).reshape(-1, 4, flat.shape[1])
    return parts[:, 0] | parts[:, 1] << 2 | parts[:, 2] << 4 | parts[:, 3] << 6


def wrong_tensors(expected, bound, got):
    """Asking for <= lets nan fail by itself."""
    wrong = []
    for name, truth in expected.items():
        there = name in got and got[name].shape == truth.shape
        if not there or not (abs(got[name] - truth) <= bound[name]).all():
            wrong.append(name)
    return sorted(wrong)
