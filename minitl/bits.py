"""Codes of 1, 2 or 4 bits, packed into bytes.

Codes of an (N, H, W, C) map are packed along its positions, in (n, h, w) order: byte r of
channel c holds positions 8 r / bits, ... of that channel, low bits first. For one bit this is
`np.packbits(codes.reshape(-1, C), axis=0, bitorder="little")`. Neighbouring bytes are then
neighbouring channels, which the loops below walk side by side; the last bytes are padded with 0.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, positions
from minitl.kernels import threads
from minitl.kernels.jit import jit


def packed_shape(shape: Shape, bits: int) -> Shape:
    """Shape (bytes, C) of the packed codes of a map of that shape."""
    return -(-positions(shape) * bits // 8), shape[-1]


def pack(codes: Array, bits: int) -> Array:
    """Pack uint8 codes (..., C), each below 2**bits, into a new uint8 array (ceil(M bits / 8), C)."""
    flat = codes.reshape(-1, codes.shape[-1])
    out = np.empty(packed_shape(codes.shape, bits), np.uint8)
    per_byte = 8 // bits
    threads.run(
        lambda a, b: _pack(flat[a:b], bits, out[a // per_byte : -(-b // per_byte)]),
        threads.chunks(len(flat), flat.size, align=per_byte),
    )
    return out


def unpack(packed: Array, bits: int, shape: Shape) -> Array:
    """The uint8 codes of that shape: the inverse of `pack`."""
    ones = np.ones((positions(shape), shape[-1]), np.uint8)
    out = np.empty_like(ones)
    _by_level(ones, packed, bits, np.arange(2**bits, dtype=np.uint8), out)
    return out.reshape(shape)


def times_level(gy: Array, packed: Array, bits: int, levels: tuple[float, ...]) -> Array:
    """gy * levels[code], a new array: the backward of an activation whose slope a code selects."""
    flat = gy.reshape(-1, gy.shape[-1])
    out = np.empty_like(flat)
    table = np.array(levels, gy.dtype)
    per_byte = 8 // bits
    threads.run(
        lambda a, b: _by_level(flat[a:b], packed[a // per_byte : -(-b // per_byte)], bits, table, out[a:b]),
        threads.chunks(len(flat), flat.size, align=per_byte),
    )
    return out.reshape(gy.shape)


@jit
def _pack(codes: Array, bits: int, out: Array) -> None:
    per_byte = 8 // bits
    out[:] = 0
    for m in range(codes.shape[0]):
        row, target, shift = codes[m], out[m // per_byte], bits * (m % per_byte)
        for c in range(row.size):
            target[c] |= row[c] << shift


@jit
def _by_level(gy: Array, packed: Array, bits: int, levels: Array, out: Array) -> None:
    per_byte, low = 8 // bits, (1 << bits) - 1
    for m in range(gy.shape[0]):
        source, target, codes, shift = gy[m], out[m], packed[m // per_byte], bits * (m % per_byte)
        for c in range(source.size):
            target[c] = source[c] * levels[(codes[c] >> shift) & low]
