"""What is wrong with packed codes: their values, or how they were packed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minitl.arrays import Array
from minitl.bits import pack, unpack
from minitl.oracle.case import Case, from_layout, shape_from
from minitl.oracle.mistakes.activations import mask_cause, masks

ALONG = "mask packed along another axis: "
FEW = 8  # positions: of fewer, the wrong values of another mistake may happen to be the right ones turned round


def cause(case: Case, name: str, got: Array, activation: tuple[str, Array] | None) -> str:
    """A likely cause, or nothing; `activation` is that whose codes these are, if it is one's, and its input."""
    row, expected = case.row(name), case.tensors[name]
    bits, shape = row["bits"], shape_from(row["shape"], case.layout)
    if bits >= 8 or got.dtype.kind not in "iub":
        return ""
    codes = unpack(expected, bits, shape)
    right = expected.reshape(-1)
    every = [*_other_masks(*activation, right)] if activation and bits == 1 else []
    if got.ndim == 4:  # not packed by whoever made it
        flat = pack(np.ascontiguousarray(from_layout(got.astype(np.uint8), case.layout)), bits).reshape(-1)
    else:
        flat = got.reshape(-1).astype(np.uint8)
        every += _packings(codes, bits, expected)
    others = [(text, p) for text, p in every if not np.array_equal(p, right)]
    for text, packed in sorted(others, key=lambda other: len(other[1]) != len(flat)):
        length = min(len(packed), len(flat))
        if (flat[:length] == packed[:length]).all() and not flat[length:].any() and not packed[length:].any():
            return text
    if got.shape != expected.shape or (unpack(got.astype(np.uint8), bits, shape) != codes).any():
        return ""
    return "the unused high bits of the last bytes must be 0"


def where(case: Case, name: str, got: Array) -> str:
    """Which codes are wrong, for packed ones of the right shape."""
    row, expected = case.row(name), case.tensors[name]
    shape = shape_from(row["shape"], case.layout)
    wrong = unpack(got, row["bits"], shape) != unpack(expected, row["bits"], shape)
    first = f", the first at (n, h, w, c) = {np.argwhere(wrong)[0].tolist()}" if wrong.any() else ""
    return f"{int(wrong.sum())} of {wrong.size} codes wrong{first}"


def _packings(codes: Array, bits: int, expected: Array) -> Iterator[tuple[str, Array]]:
    """Other ways to pack the right codes, and one way to get all of them wrong."""
    top = (1 << bits) - 1
    yield "flipped mask bits", pack((top - codes).astype(np.uint8), bits).reshape(-1)
    if bits == 2:
        threes = np.where(codes == 2, 3, codes).astype(np.uint8)
        yield "code 3 for values above the upper clip, 2 is right", pack(threes, 2).reshape(-1)
    yield "bit order big-endian: the first position is the lowest bit", _reversed(expected)
    channels = codes.reshape(-1, codes.shape[-1])
    if len(channels) >= FEW:
        yield "positions in the opposite order", pack(np.ascontiguousarray(channels[::-1]), bits).reshape(-1)
    yield ALONG + "channels share a byte, where positions of one channel should", _row(codes, bits)
    if codes.ndim == 4:
        text = "bytes run along (n, c, h, w); they stand channel by channel at each eighth position"
        yield ALONG + text, _row(codes.transpose(0, 3, 1, 2), bits)
        yield ALONG + "bytes run along (c, n, h, w); (bytes, C) is right", _row(codes.transpose(3, 0, 1, 2), bits)
        columns = np.ascontiguousarray(codes.transpose(0, 2, 1, 3))
        yield ALONG + "positions are in (n, w, h) order, where (n, h, w) is right", pack(columns, bits).reshape(-1)
        padded = np.concatenate([pack(np.ascontiguousarray(image), bits) for image in codes])
        yield "packed sample by sample, each padded to whole bytes; a byte may straddle two samples", padded.reshape(-1)
        rows = np.concatenate([pack(np.ascontiguousarray(line), bits) for image in codes for line in image])
        yield "packed row by row, each padded to whole bytes; a byte may straddle two rows", rows.reshape(-1)
    yield ALONG + "the bytes of a channel follow one another, (C, bytes); (bytes, C) is right", expected.T.reshape(-1)


def _other_masks(op: str, x: Array, right: Array) -> Iterator[tuple[str, Array]]:
    """What the bits are if another mask is taken."""
    packed = {text: pack(mask(x).astype(np.uint8), 1).reshape(-1) for text, mask in masks(op).items()}
    true = next((text for text, bits in packed.items() if np.array_equal(bits, right)), "")
    yield from ((mask_cause(text, true), bits) for text, bits in packed.items() if true)


def _row(codes: Array, bits: int) -> Array:
    """All codes in memory's order packed as one channel."""
    return pack(np.ascontiguousarray(codes).reshape(-1, 1), bits).reshape(-1)


def _reversed(packed: Array) -> Array:
    """The bits of each byte in the opposite order."""
    return np.packbits(np.unpackbits(packed.reshape(-1)).reshape(-1, 8), axis=1, bitorder="little").reshape(-1)
