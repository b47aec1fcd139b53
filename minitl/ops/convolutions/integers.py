"""8-bit integers: rounding an array to them, and their products with sums in 32 bits, at once or plane by plane.

The rule `bit-serial` multiplies as a digital in-memory array does, by AND and population count over bit planes: with
two's complement, and s_i = -1 at the top bit and else 1,

    sum_k a_k b_k = sum over planes i, j of s_i s_j 2^(i + j) popcount(A_i & B_j)

to the bit the same numbers.
"""

from __future__ import annotations

from itertools import product as pairs

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.ops.room import Room, made, room_bytes

INTEGER, BIT_SERIAL = RULES = "integer", "bit-serial"
BITS, MOST = 8, 127
TERMS = (2**31 - 1) // MOST**2  # products that a sum in 32 bits has room for


def quantise(values: Array, rng: np.random.Generator | None = None) -> tuple[Array, float]:
    """Codes in int8 and their scale; rounded to nearest, or with `rng` at random so that the mean is the value."""
    scale = float(np.maximum(values.max(), -values.min())) / MOST or 1.0
    codes = np.empty(values.shape, np.int8)
    scaled, *noise = made(rounding_room(values.shape, values.dtype.name, noisy=rng is not None))
    for part, code in zip(values, codes, strict=True):
        whole = np.divide(part, scale, out=scaled)
        if rng is None:
            np.rint(whole, out=whole)
        else:
            whole = np.add(whole, rng.random(out=noise[0]), out=noise[0])
            np.floor(whole, out=whole)
        code[...] = np.clip(whole, -MOST, MOST, out=whole)
    return codes, scale


def rounding_room(values: Shape, dtype: str, *, noisy: bool) -> Room:
    """What `quantise` takes in passing: a sample, and noise for it."""
    return [(values[1:], dtype), (values[1:], "float64")][: 1 + noisy]


def quantising_bytes(values: Shape, dtype: str, *, noisy: bool = False) -> int:
    """What `quantise` holds at most: the codes, and what it takes in passing."""
    return size(values) + room_bytes(rounding_room(values, dtype, noisy=noisy))


def product(a: Array, b: Array, rule: str = INTEGER) -> Array:
    """a (M, K) times the transpose of b (O, K), int8, with sums in int32: at once, or plane by plane."""
    sums, *room = made(product_room(len(a), a.shape[1], len(b), rule))
    if rule == INTEGER:
        wide_a, wide_b = room
        wide_a[...], wide_b[...] = a, b
        return np.matmul(wide_a, wide_b.T, out=sums)
    of_a, of_b, both, ones = room
    _planes(a, of_a)
    _planes(b, of_b)
    sums[...] = 0
    for i, j in pairs(range(BITS), range(BITS)):
        np.bitwise_count(np.bitwise_and(of_a[i][:, None], of_b[j], out=both), out=both)
        both.sum(axis=-1, out=ones)
        ones *= (1 << (i + j)) * (-1 if (i == BITS - 1) != (j == BITS - 1) else 1)
        sums += ones
    return sums


def product_room(m: int, k: int, o: int, rule: str) -> Room:
    """The sums, and in passing operands of 32 bits; or planes of both, their AND and its counts."""
    if rule == INTEGER:
        return [((m, o), "int32"), ((m, k), "int32"), ((o, k), "int32")]
    packed = -(-k // 8)
    planes = ((BITS, m, packed), "uint8"), ((BITS, o, packed), "uint8")
    return [((m, o), "int32"), *planes, ((m, o, packed), "uint8"), ((m, o), "int32")]


def product_bytes(m: int, k: int, o: int, rule: str) -> int:
    """What they take together."""
    return room_bytes(product_room(m, k, o, rule))


def _planes(codes: Array, out: Array) -> None:
    """The bits of weight 1, 2, 4, ... of all codes (M, K), packed along K, into out (8, M, K / 8)."""
    for number, row in enumerate(codes.view(np.uint8)):
        out[:, number] = np.packbits(row >> np.arange(BITS, dtype=np.uint8)[:, None] & 1, axis=-1)
