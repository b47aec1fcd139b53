"""A kept array as codes of 8, 4 or 2 bits, in groups of 256 values with a range each (ActNN).

Chen et al., ICML 2021, arXiv:2104.14129, at fixed bits. Each sample is laid out flat, padded with zeros to whole
groups. With a group's least value lo and step = (greatest - lo) / (2^b - 1),

    code = rint((x - lo) / step + u),  u uniform in [-1/2, 1/2)        x' = lo + step code

so the mean of x' over u is x, and so is that of anything linear in x', such as a weight gradient. lo and step are
kept as bfloat16, lo rounded down and step up (ours: no code is then out of range, and nothing clipped). Bytes of
a group: 256 b / 8 + 4, that is 68 of 1,024 at 2 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, Shape, size
from minitl.saved import Kept, Saved

GROUP = 256
BITS = {f"quantised{bits}": bits for bits in (8, 4, 2)}


def groups_of(shape: Shape) -> int:
    """Groups of all samples of x (N, ...)."""
    return shape[0] * -(-size(shape[1:]) // GROUP)


def kept(shape: Shape, bits: int, needed_for: tuple[str, ...]) -> tuple[Kept, ...]:
    """The codes and ranges of an array of that shape."""
    groups = groups_of(shape)
    return (
        Kept("codes", shape, "uint8", bits, groups * GROUP * bits // 8, needed_for),
        Kept("ranges", (groups, 2), "uint16", 16, groups * 4, needed_for),
    )


def keep(saved: Saved, x: Array, bits: int, seed: Sequence[int], needed_for: tuple[str, ...]) -> None:
    """Keep x as codes; `seed` decides how they are rounded."""
    per_sample = groups_of(x.shape) // len(x)
    codes = np.empty((groups_of(x.shape), GROUP * bits // 8), np.uint8)
    ranges = np.empty((len(codes), 2), np.uint16)
    rng = np.random.default_rng(seed)
    for n, sample in enumerate(x):
        mine = slice(n * per_sample, (n + 1) * per_sample)
        values = np.zeros((per_sample, GROUP))
        values.ravel()[: sample.size] = sample.ravel()
        codes[mine], ranges[mine] = _encode(values, bits, rng)
    saved.keep("codes", codes, needed_for, codes=(x.shape, bits))
    saved.keep("ranges", ranges, needed_for)


def read(saved: Saved, dtype: np.dtype[np.floating]) -> Array:
    """The array that the codes stand for."""
    kept = saved.buffers["codes"].kept
    codes, ranges, bits = saved["codes"], saved["ranges"], kept.bits
    x = np.empty(kept.shape, dtype)
    per_sample = len(codes) // len(x)
    for n, sample in enumerate(x):
        mine = slice(n * per_sample, (n + 1) * per_sample)
        low, step = (_from_bfloat16(ranges[mine, i])[:, None] for i in (0, 1))
        values = low + step * _unpack(codes[mine], bits)
        sample[...] = values.ravel()[: sample.size].reshape(sample.shape)
    return x


def _encode(values: Array, bits: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Packed codes (groups, bytes) and ranges (groups, 2) of values (groups, 256) in float64."""
    low = _to_bfloat16(values.min(axis=1), up=False)
    values -= _from_bfloat16(low)[:, None]
    step = _to_bfloat16(values.max(axis=1) / (2**bits - 1), up=True)
    values /= np.maximum(_from_bfloat16(step), np.finfo(np.float32).tiny)[:, None]
    values += rng.random(values.shape)
    codes = np.minimum(np.floor(values), 2**bits - 1).astype(np.uint8)
    return _pack(codes, bits), np.stack([low, step], axis=1)


def _pack(codes: Array, bits: int) -> Array:
    """Low bits first, neighbouring values side by side in a byte."""
    per_byte = 8 // bits
    out = codes[:, ::per_byte].copy()
    for place in range(1, per_byte):
        out |= codes[:, place::per_byte] << (bits * place)
    return out


def _unpack(packed: Array, bits: int) -> Array:
    per_byte = 8 // bits
    codes = np.empty((len(packed), packed.shape[1] * per_byte), np.uint8)
    for place in range(per_byte):
        codes[:, place::per_byte] = packed >> (bits * place) & (2**bits - 1)
    return codes


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
