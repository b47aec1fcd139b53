"""Codes of 1, 2 or 4 bits, packed into bytes.

Codes of an (N, H, W, C) map are packed along its positions, in (n, h, w) order: byte r of
channel c holds positions 8 r / bits, ... of that channel, low bits first. For one bit this is
`np.packbits(codes.reshape(-1, C), axis=0, bitorder="little")`. Neighbouring bytes are then
neighbouring channels, which kernels read side by side; the last bytes are padded with 0.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, as_rows, positions


def packed_shape(shape: Shape, bits: int) -> Shape:
    """Shape (bytes, C) of the packed codes of a map of that shape."""
    return -(-positions(shape) * bits // 8), shape[-1]


def pack(codes: Array, bits: int) -> Array:
    """Pack uint8 codes (..., C), each below 2**bits, into a new uint8 array (ceil(M bits / 8), C)."""
    rows = as_rows(codes)
    if bits == 1:
        return np.packbits(rows, axis=0, bitorder="little")
    out = np.zeros(packed_shape(codes.shape, bits), np.uint8)
    per_byte = 8 // bits
    for i in range(per_byte):
        here = rows[i::per_byte]
        out[: len(here)] |= here << np.uint8(bits * i)
    return out


def unpack(packed: Array, bits: int, shape: Shape) -> Array:
    """The uint8 codes of that shape: the inverse of `pack`."""
    per_byte, low = 8 // bits, np.uint8(2**bits - 1)
    out = np.empty((len(packed), per_byte, packed.shape[1]), np.uint8)
    for i in range(per_byte):
        out[:, i] = (packed >> np.uint8(bits * i)) & low
    return out.reshape(-1, packed.shape[1])[: positions(shape)].reshape(shape)
