"""A kept array as codes of 8, 4 or 2 bits, in groups of 256 values with a range each (ActNN).

Chen et al., ICML 2021, arXiv:2104.14129, at fixed bits. Each sample is laid out flat, padded with zeros to whole
groups. With a group's least value lo and step = (greatest - lo) / (2^b - 1),

    code = rint((x - lo) / step + u),  u uniform in [-1/2, 1/2)        x' = lo + step code

so the mean of x' over u is x, and so is that of anything linear in x', such as a weight gradient. lo and step are
kept as bfloat16, lo rounded down and step up (ours: no code is then out of range, and nothing clipped). Bytes of
a group: 256 b / 8 + 4, that is 68 of 1,024 at 2 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import keeps_array
from minitl.ops.room import Room, made
from minitl.ops.rules.encoding import Encoding
from minitl.saved import Kept, Saved

GROUP, FEW = 256, 32  # values in a group; groups that are encoded or decoded at a time
BITS = {f"quantised{bits}": bits for bits in (8, 4, 2)}


def groups_of(shape: Shape) -> int:
    """Groups of all samples of x (N, ...)."""
    return shape[0] * -(-size(shape[1:]) // GROUP)


def kept(shape: Shape, dtype: str, bits: int) -> tuple[Kept, ...]:
    """The codes and ranges of an array of that shape."""
    groups = groups_of(shape)
    codes = Kept("codes", shape, "uint8", bits, groups * GROUP * bits // 8, GRAD_WEIGHT)
    return codes, keeps_array("ranges", (groups, 2), "uint16", GRAD_WEIGHT)


def decoding_room(shape: Shape, dtype: str) -> Room:
    """What decoding an array of that shape takes in passing: values and codes of a few groups."""
    few = min(FEW, groups_of(shape) // shape[0])
    return [((few, GROUP), "float64"), ((few, GROUP), "uint8")]


def encoding_room(shape: Shape, dtype: str) -> Room:
    """What encoding takes: noise besides."""
    values, codes = decoding_room(shape, dtype)
    return [values, codes, values]


def keep(saved: Saved, x: Array, seed: Sequence[int], bits: int) -> None:
    """Keep x as codes; `seed` decides how they are rounded."""
    packed = np.empty((groups_of(x.shape), GROUP * bits // 8), np.uint8)
    ranges = np.empty((len(packed), 2), np.uint16)
    rng, passing = np.random.default_rng(seed), made(encoding_room(x.shape, x.dtype.name))
    for part, rows in _parts(x, len(packed)):
        values, codes, noise = (a[: rows.stop - rows.start] for a in passing)
        flat = values.reshape(-1)
        flat[: part.size], flat[part.size :] = part, 0
        ranges[rows] = _encode(values, bits, rng.random(out=noise))
        codes[...] = values
        _pack(codes, bits, packed[rows])
    saved.keep("codes", packed, GRAD_WEIGHT, codes=(x.shape, bits))
    saved.keep("ranges", ranges, GRAD_WEIGHT)


def restore(saved: Saved, dtype: np.dtype[np.floating]) -> Array:
    """The array that the codes stand for."""
    kept, packed, ranges = saved.buffers["codes"].kept, saved["codes"], saved["ranges"]
    x, passing = np.empty(kept.shape, dtype), made(decoding_room(kept.shape, dtype.name))
    for part, rows in _parts(x, len(packed)):
        values, codes = (a[: rows.stop - rows.start] for a in passing)
        _unpack(packed[rows], kept.bits, codes)
        low, step = (_from_bfloat16(ranges[rows, i])[:, None] for i in (0, 1))
        np.multiply(codes, step, out=values)
        values += low
        part[...] = values.reshape(-1)[: part.size]
    return x


def _parts(x: Array, groups: int) -> Iterator[tuple[Array, slice]]:
    """The values of x, contiguous, a few groups at a time, and which of all groups these are."""
    per_sample = groups // len(x)
    for n, sample in enumerate(x.reshape(len(x), -1)):
        for first in range(0, per_sample, FEW):
            stop = min(first + FEW, per_sample)
            yield sample[first * GROUP : stop * GROUP], slice(n * per_sample + first, n * per_sample + stop)


def _encode(values: Array, bits: int, noise: Array) -> Array:
    """Turn values (groups, 256) in float64 into codes, still float64; returns ranges (groups, 2)."""
    low = _to_bfloat16(values.min(axis=1), up=False)
    values -= _from_bfloat16(low)[:, None]
    step = _to_bfloat16(values.max(axis=1) / (2**bits - 1), up=True)
    values /= np.maximum(_from_bfloat16(step), np.finfo(np.float32).tiny)[:, None]
    values += noise
    np.floor(values, out=values)
    np.minimum(values, 2**bits - 1, out=values)
    return np.stack([low, step], axis=1)


def _pack(codes: Array, bits: int, out: Array) -> None:
    """Low bits first, neighbouring values side by side in a byte; shifts `codes`."""
    per_byte = 8 // bits
    out[...] = codes[:, ::per_byte]
    for place in range(1, per_byte):
        here = codes[:, place::per_byte]
        here <<= bits * place
        out |= here


def _unpack(packed: Array, bits: int, codes: Array) -> None:
    per_byte = 8 // bits
    for place in range(per_byte):
        np.right_shift(packed, bits * place, out=codes[:, place::per_byte])
    codes &= 2**bits - 1


def _to_bfloat16(values: Array, *, up: bool) -> Array:
    """The upper half of float32's bits, of the nearest such number not below (`up`) or not above each value."""
    toward = np.inf if up else -np.inf
    near = values.astype(np.float32)
    wrong = near < values if up else near > values
    near = np.where(wrong, np.nextafter(near, np.float32(toward)), near)
    bits = near.view(np.uint32)
    away = (bits & 0xFFFF != 0) & ((near > 0) == up)  # cutting bits off goes towards 0
    halves: Array = ((bits >> 16) + away).astype(np.uint16)
    return halves


def _from_bfloat16(halves: Array) -> Array:
    wide: Array = (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return wide


ENCODINGS = {
    rule: Encoding(partial(keep, bits=bits), restore, partial(kept, bits=bits), encoding_room, decoding_room)
    for rule, bits in BITS.items()
}
