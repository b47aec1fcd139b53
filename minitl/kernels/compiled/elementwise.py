"""Kernels that go over a map once: norm, activation and codes on the way up, slope and sums on the way down.

Addresses of maps, codes and sums are those of position 0; a call does positions m0..m1, in any
partition. Codes lie along positions, eight or fewer to a byte: where m0 is not the first of its byte, the
bits up to the next byte go to `edge` (channels x bits bytes, cleared by the caller), and are joined afterwards.
"""

from __future__ import annotations

from functools import cache

from minitl.arrays import itemsize
from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments
from minitl.kernels.compiled.stages import activate, add_dots, add_rows, affine, centre, put_codes, times, times_slope
from minitl.kernels.compiled.tile import ROWS, read, store, wide, zeros
from minitl.kernels.fetch import goes_in_order
from minitl.kernels.rules import BATCH, FROZEN, NONE, FromInput, codes_of, digest, rule_of
from minitl.kernels.target import lanes


@cache
def finish(dtype: str, norm: int, name: str, rule: str, masked: bool) -> Kernel:
    """y = activation(norm(x)), with what the rule keeps: codes, or the activation's input."""
    version, bits, mask, step = sources() + digest(name, rule), 8 * itemsize(dtype), int(masked), lanes(dtype)
    known = rule_of(name, rule) if rule else None
    codes = codes_of(known)
    code_bits, coded, keeps = codes.bits if codes else 8, codes is not None, isinstance(known, FromInput)
    per_byte = 8 // code_bits
    high = 1 if goes_in_order(norm, keeps=keeps) else ROWS

    @kernel
    def run(p: int) -> None:
        m0, m1, channels, x, y, scale, shift, mean, inv_std, x_hat, kept, packed, edge = arguments(p, 13, version)
        w, head = wide(1, bits, mask), m0 // per_byte if m0 % per_byte else -1  # the byte that other positions share

        def tiles(rows: int, m: int) -> None:
            byte = m // per_byte
            to = edge if byte == head else packed + byte * channels
            for c in range(0, channels, step):
                at, left = m * channels + c, channels - c
                t = read(zeros(rows, w), x, at, channels, left)
                if norm == BATCH:
                    t = centre(t, mean, inv_std, c, left)
                    store(t, x_hat, at, channels, left)
                if norm != NONE:
                    t = affine(t, scale, shift, c, left)
                if keeps:
                    store(t, kept, at, channels, left)
                if coded:
                    put_codes(name, rule, t, to, c, channels, m % per_byte * code_bits, left)
                store(activate(name, t), y, at, channels, left)

        m = m0
        while m < m1:
            if m % high == 0 and m + high <= m1:
                tiles(high, m)
                m += high
            else:
                tiles(1, m)
                m += 1

    return run


@cache
def slope(dtype: str, norm: int, name: str, rule: str, masked: bool) -> Kernel:
    """g = gy times the activation's slope, then the norm's part of backward.

    NONE: g as it is. FROZEN: its sum per channel goes to `sums`, then g scale. BATCH: its sum, and its
    product with x_hat to `dots`. Without a rule there is no activation.
    """
    version, bits, mask, step = sources() + digest(name, rule), 8 * itemsize(dtype), int(masked), lanes(dtype)
    known = rule_of(name, rule) if rule else None
    codes = codes_of(known)
    code_bits, sloped = codes.bits if codes else 8, known is not None
    per_byte = 8 // code_bits

    @kernel
    def run(p: int) -> None:
        m0, m1, channels, gy, g, scale, x_hat, kept, packed, sums, dots = arguments(p, 11, version)
        w = wide(1, bits, mask)

        def tiles(rows: int, m: int) -> None:
            byte, shift = m // per_byte * channels, m % per_byte * code_bits
            for c in range(0, channels, step):
                at, left = m * channels + c, channels - c
                t = read(zeros(rows, w), gy, at, channels, left)
                if sloped:
                    t = times_slope(name, rule, t, packed, byte + c, shift, kept, at, channels, left)
                if norm != NONE:
                    add_rows(t, sums, c, left)
                if norm == FROZEN:
                    t = times(t, scale, c, left)
                if norm == BATCH:
                    add_dots(t, read(zeros(rows, w), x_hat, at, channels, left), dots, c, left)
                store(t, g, at, channels, left)

        m = m0
        while m < m1:  # in order, for the sums
            if m % ROWS == 0 and m + ROWS <= m1:
                tiles(ROWS, m)
                m += ROWS
            else:
                tiles(1, m)
                m += 1

    return run
