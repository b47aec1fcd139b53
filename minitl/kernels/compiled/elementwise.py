"""Kernels that go over a map once: norm, activation and codes on the way up, slope and sums on the way down.

Addresses of maps, codes and sums are those of position 0; a call does positions m0..m1, in any
partition. Codes lie along positions, eight or fewer to a byte: where m0 is not the first of its byte, the
bits up to the next byte go to `edge` (channels x bits bytes, cleared by the caller), and are joined afterwards.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments
from minitl.kernels.compiled.stages import (
    activate,
    add_codes,
    add_dots,
    add_rows,
    affine,
    centre,
    put_codes,
    times,
    times_slope,
)
from minitl.kernels.compiled.tile import read, store, wide, zeros
from minitl.kernels.rules import Codes, FromInput, codes_of, digest, rule_of
from minitl.kernels.target import target

NONE, FROZEN, BATCH = (
    0,
    1,
    2,
)  # what a norm does: nothing; scale and shift; centre, scale (x_hat, kept), scale and shift


@cache
def finish(dtype: str, norm: int, name: str, rule: str, masked: bool) -> Kernel:
    """y = activation(norm(x)), with what the rule keeps: codes, or the activation's input."""
    rows, bits = 8, 8 * np.dtype(dtype).itemsize
    lanes, version = target().lanes(bits // 8), sources() + digest(name, rule)
    known = rule_of(name, rule) if rule else None
    codes = codes_of(known)
    per_byte = 8 // codes.bits if codes else 1
    code_bits, coded, keeps = codes.bits if codes else 1, codes is not None, isinstance(known, FromInput)
    mask = int(masked)

    @kernel
    def run(p: int) -> None:
        x, y, m0, m1, channels, scale, shift, mean, inv_std, x_hat, kept, packed, edge = arguments(p, 13, version)
        w, byte_step = wide(1, bits, mask), channels
        aligned = min(m1, (m0 + rows - 1) // rows * rows)
        whole = max(aligned, m1 // rows * rows)
        head = m0 // per_byte if m0 % per_byte else -1  # the byte that other positions share
        for m in range(aligned, whole, rows):
            for c in range(0, channels, lanes):
                t, left = read(zeros(rows, w), x, m * channels + c, channels, channels - c), channels - c
                if norm == BATCH:
                    t = centre(t, mean, inv_std, c, left)
                    store(t, x_hat, m * channels + c, channels, left)
                if norm != NONE:
                    t = affine(t, scale, shift, c, left)
                if keeps:
                    store(t, kept, m * channels + c, channels, left)
                if coded:
                    put_codes(name, rule, t, packed, (m // rows * code_bits) * channels + c, byte_step, left)
                store(activate(name, t), y, m * channels + c, channels, left)
        for part in range(2):
            for m in range(m0 if part == 0 else whole, aligned if part == 0 else m1):
                byte = m // per_byte
                to = edge if byte == head else packed + byte * channels
                for c in range(0, channels, lanes):
                    s, left = read(zeros(1, w), x, m * channels + c, channels, channels - c), channels - c
                    if norm == BATCH:
                        s = centre(s, mean, inv_std, c, left)
                        store(s, x_hat, m * channels + c, channels, left)
                    if norm != NONE:
                        s = affine(s, scale, shift, c, left)
                    if keeps:
                        store(s, kept, m * channels + c, channels, left)
                    if coded:
                        add_codes(name, rule, s, to, c, m % per_byte * code_bits, left)
                    store(activate(name, s), y, m * channels + c, channels, left)

    return run


@cache
def slope(dtype: str, norm: int, name: str, rule: str, masked: bool) -> Kernel:
    """g = gy times the activation's slope, then the norm's part of backward.

    NONE: g as it is. FROZEN: its sum per channel goes to `sums`, then g scale. BATCH: its sum, and its
    product with x_hat to `dots`. Without a rule there is no activation.
    """
    rows, bits = 8, 8 * np.dtype(dtype).itemsize
    lanes, version = target().lanes(bits // 8), sources() + digest(name, rule)
    known = rule_of(name, rule) if rule else None
    codes = codes_of(known)
    code_bits, sloped, mask = codes.bits if codes else 1, known is not None, int(masked)
    per_byte = 8 // code_bits
    assert known is None or isinstance(known, Codes) or known.slope

    @kernel
    def run(p: int) -> None:
        gy, g, m0, m1, channels, scale, x_hat, kept, packed, sums, dots = arguments(p, 11, version)
        w = wide(1, bits, mask)
        aligned = min(m1, (m0 + rows - 1) // rows * rows)
        whole = max(aligned, m1 // rows * rows)
        for part in range(3):  # in this order, for the sums
            if part == 1:
                for m in range(aligned, whole, rows):
                    for c in range(0, channels, lanes):
                        at, left = m * channels + c, channels - c
                        t = read(zeros(rows, w), gy, at, channels, left)
                        if sloped:
                            byte = m // per_byte * channels + c
                            t = times_slope(name, rule, t, packed, byte, channels, 0, kept, at, channels, left)
                        if norm != NONE:
                            add_rows(t, sums, c, left)
                        if norm == FROZEN:
                            t = times(t, scale, c, left)
                        if norm == BATCH:
                            add_dots(t, read(zeros(rows, w), x_hat, at, channels, left), dots, c, left)
                        store(t, g, at, channels, left)
            else:
                for m in range(m0 if part == 0 else whole, aligned if part == 0 else m1):
                    byte, shift = m // per_byte * channels, m % per_byte * code_bits
                    for c in range(0, channels, lanes):
                        at, left = m * channels + c, channels - c
                        s = read(zeros(1, w), gy, at, channels, left)
                        if sloped:
                            s = times_slope(name, rule, s, packed, byte + c, channels, shift, kept, at, channels, left)
                        if norm != NONE:
                            add_rows(s, sums, c, left)
                        if norm == FROZEN:
                            s = times(s, scale, c, left)
                        if norm == BATCH:
                            add_dots(s, read(zeros(1, w), x_hat, at, channels, left), dots, c, left)
                        store(s, g, at, channels, left)

    return run
