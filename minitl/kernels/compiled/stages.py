"""What tiles of a map go through on their way: norms, activations, codes, their backward, sums per channel.

The tile's row i is position m + i of the map; vectors of channels begin at channel `at`, of which
`left` exist. Codes of `bits` bits lie along positions: byte r of a channel holds positions 8 r / bits, ...
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir

from minitl.kernels.compiled.tile import FLOATS, I8, I32, I64, NAMES, Writer, literal_op, nothing, tile_op
from minitl.kernels.rules import Codes, FromOutput, codes_of, formula, rule_of

DOUBLE = FLOATS[64]


@tile_op()
def affine(w: Writer, _: Any, t: Any, scale: Any, shift: Any, at: Any, left: Any) -> Any:
    """t scale + shift, each rounded."""
    scales, shifts = w.row(scale, at, left), w.row(shift, at, left)
    return w.map(t, lambda v, i, j: w.b.fadd(w.b.fmul(v, scales[j]), shifts[j]))


@tile_op()
def centre(w: Writer, _: Any, t: Any, mean: Any, scale: Any, at: Any, left: Any) -> Any:
    """(t - mean) scale, each rounded."""
    means, scales = w.row(mean, at, left), w.row(scale, at, left)
    return w.map(t, lambda v, i, j: w.b.fmul(w.b.fsub(v, means[j]), scales[j]))


@tile_op()
def times(w: Writer, _: Any, t: Any, scale: Any, at: Any, left: Any) -> Any:
    """t scale."""
    scales = w.row(scale, at, left)
    return w.map(t, lambda v, i, j: w.b.fmul(v, scales[j]))


@literal_op()
def activate(w: Writer, literals: dict[str, str], name: Any, t: Any) -> Any:
    """The formula of that name: the same function that NumPy runs on arrays."""
    value = formula(literals["name"])
    return w.map(t, lambda v, i, j: value(w.trace(v)).value)


@literal_op()
def ended(w: Writer, literals: dict[str, str], name: Any, t: Any, scale: Any, shift: Any, at: Any, left: Any) -> Any:
    """t as it is; or, where an activation is named, that of t scale + shift."""
    if not literals["name"]:
        return t
    value, scales, shifts = formula(literals["name"]), w.row(scale, at, left), w.row(shift, at, left)
    return w.map(t, lambda v, i, j: value(w.trace(w.b.fadd(w.b.fmul(v, scales[j]), shifts[j]))).value)


def _code(w: Writer, rule: Codes, v: Any) -> Any:
    """The code of each lane, int32."""
    count = w.constant(0, I32)
    for threshold in rule.thresholds(NAMES[w.tile.bits]):
        over = w.b.fcmp_ordered(">=", v, w.constant(float(threshold)))
        count = w.b.add(count, w.b.zext(over, count.type))
    return w.b.and_(count, w.constant(2**rule.bits - 1, I32))


@literal_op(nothing)
def put_codes(
    w: Writer, literals: dict[str, str],
    name: Any, rule: Any, t: Any, packed: Any, byte: Any, step: Any, shift: Any, left: Any,
) -> None:  # fmt: skip
    """Write the codes of a tile of 8 rows and one vector, whole bytes: packed[byte + r step] for r < bits.

    Those of a single row are joined to what is there, at bit `shift`.
    """
    kept, (mask,) = codes_of(rule_of(literals["name"], literals["rule"])), w.masks(left)
    assert kept
    codes, per_byte = [_code(w, kept, v) for v, _, _ in w.each(t)], 8 // kept.bits
    for r in range(0, len(codes), per_byte):
        word = codes[r]
        for i, code in enumerate(codes[r + 1 : r + per_byte], start=1):
            word = w.b.or_(word, w.b.shl(code, w.constant(i * kept.bits, I32)))
        place = w.at(packed, byte, w.b.mul(step, I64(r // per_byte)), kind=I8)
        if len(codes) == 1:
            word = w.b.shl(word, w.splat(w.b.trunc(shift, I32)))
        written = w.b.trunc(word, ir.VectorType(I8, w.lanes))
        w.save(w.b.or_(w.load(place, mask, I8), written) if len(codes) == 1 else written, place, mask)


def _slope(w: Writer, literals: dict[str, str], code: Any, y: Any) -> Any:
    """The slope by code and output (or input) `y`, as the rule has it."""
    rule = rule_of(literals["name"], literals["rule"])
    if isinstance(rule, Codes):
        level = w.constant(rule.levels[0])
        for number, value in enumerate(rule.levels[1:], start=1):
            here = w.b.icmp_unsigned("==", code, w.constant(number, I32))
            level = w.b.select(here, w.constant(value), level)
        return level
    if isinstance(rule, FromOutput) and rule.codes:
        on = w.b.icmp_unsigned("!=", code, w.constant(0, I32))
        return rule.slope(w.trace(y), w.trace(on)).value
    return rule.slope(w.trace(y)).value


@literal_op()
def times_slope(
    w: Writer, literals: dict[str, str],
    name: Any, rule: Any, t: Any, packed: Any, byte: Any, shift: Any, kept: Any, at: Any, step: Any, left: Any,
) -> Any:  # fmt: skip
    """t times the slopes of its rows: codes packed[byte + r step] (row 0 at bit `shift`), kept[at + i step].

    A tile of 8 rows begins at bit 0.
    """
    found, (mask,) = rule_of(literals["name"], literals["rule"]), w.masks(left)
    codes, rows = codes_of(found), w.tile.rows
    words = []
    if codes:
        for r in range(codes.bits if rows == 8 else 1):
            loaded = w.load(w.at(packed, byte, w.b.mul(step, I64(r)), kind=I8), mask, I8)
            words.append(w.b.zext(loaded, ir.VectorType(I32, w.lanes)))
        if rows == 1:
            words[0] = w.b.lshr(words[0], w.splat(w.b.trunc(shift, I32)))

    def multiply(v: Any, i: int, j: int) -> Any:
        code = y = None
        if codes:
            r, place = divmod(i * codes.bits, 8)
            code = w.b.and_(w.b.lshr(words[r], w.constant(place, I32)), w.constant(2**codes.bits - 1, I32))
        if not isinstance(found, Codes):
            y = w.load(w.at(kept, at, w.b.mul(step, I64(i))), mask)
        return w.b.fmul(v, _slope(w, literals, code, y))

    return w.map(t, multiply)


def _add_in_order(w: Writer, sums: Any, at: Any, mask: Any, terms: Iterable[Any]) -> None:
    """sums[at :] (float64) += the terms, vectors of doubles, one after the other."""
    place = w.at(sums, at, kind=DOUBLE)
    total = w.load(place, mask, DOUBLE)
    for term in terms:
        total = w.b.fadd(total, term)
    w.save(total, place, mask)


@tile_op(nothing)
def add_rows(w: Writer, _: Any, t: Any, sums: Any, at: Any, left: Any) -> None:
    """sums[at :] (float64) += the rows of a tile of one vector, one after the other."""
    (mask,) = w.masks(left)
    _add_in_order(w, sums, at, mask, (w.cast(v, DOUBLE) for v, _, _ in w.each(t)))


@tile_op(nothing)
def add_squares(w: Writer, _: Any, t: Any, mean: Any, sums: Any, at: Any, left: Any) -> None:
    """sums[at :] (float64) += the squares of the rows less mean[at :] (float64), one after the other."""
    (mask,) = w.masks(left)
    middle = w.load(w.at(mean, at, kind=DOUBLE), mask, DOUBLE)
    off = [w.b.fsub(w.cast(v, DOUBLE), middle) for v, _, _ in w.each(t)]
    _add_in_order(w, sums, at, mask, (w.b.fmul(d, d) for d in off))


@tile_op(nothing)
def add_dots(w: Writer, _: Any, t: Any, u: Any, sums: Any, at: Any, left: Any) -> None:
    """sums[at :] (float64) += the products of the rows of two tiles, made in float64, one after the other."""
    (mask,) = w.masks(left)
    pairs = zip(w.each(t), w.each(u), strict=True)
    _add_in_order(w, sums, at, mask, (w.b.fmul(w.cast(v, DOUBLE), w.cast(z, DOUBLE)) for (v, _, _), (z, _, _) in pairs))
