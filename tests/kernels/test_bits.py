"""Packed codes: low bits first along the positions, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from checks import same_bytes
from hypothesis import given
from hypothesis import strategies as st

from minitl.arrays import Array
from minitl.bits import pack, packed_shape, unpack

BITS = pytest.mark.parametrize("bits", [1, 2, 4])
SHAPES = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 9)),
)


def by_definition(codes: Array, bits: int) -> Array:
    """Bit b of position m stands in bit `bits * m + b` of its channel; 8 of those in a row make a byte."""
    flat = codes.reshape(-1, codes.shape[-1])
    single = np.stack([flat >> b & 1 for b in range(bits)], axis=1).reshape(-1, flat.shape[1])
    return np.packbits(single, axis=0, bitorder="little")


def random_codes(shape: tuple[int, ...], bits: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 2**bits, shape, np.uint8)


@BITS
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_codes_are_packed_low_bits_first_and_come_back(bits: int, shape: tuple[int, ...], seed: int) -> None:
    codes = random_codes(shape, bits, seed)
    packed = pack(codes, bits)
    assert packed.shape == packed_shape(shape, bits)
    assert same_bytes(packed, by_definition(codes, bits))
    assert same_bytes(unpack(packed, bits, shape), codes)


@BITS
def test_bytes_that_straddle_samples_and_chunks(bits: int) -> None:
    """7x7 maps: 49 positions a sample, not a multiple of 8; large enough for several chunks."""
    codes = random_codes((43, 7, 7, 512), bits, 0)
    packed = pack(codes, bits)
    assert same_bytes(packed, by_definition(codes, bits))
    assert same_bytes(unpack(packed, bits, codes.shape), codes)
