"""What tiles of a depthwise convolution add up: rows are neighbouring columns of a map, or the taps of a filter.

All columns that a tile reads are loaded once. Columns and rows beyond the map are skipped, not read
as 0: only those that may lie beyond it, for any padding, are asked about, by a branch that leaves the
sums in their registers. k and s are literals, so that loops over taps are unrolled.
"""

from __future__ import annotations

from typing import Any

from minitl.kernels.compiled.tile import I64, Writer, guarded, literal_op


def _exists(w: Writer, first: Any, stop: Any, at: int, *, low: bool, high: bool) -> Any:
    """first <= at < stop, as far as it is in doubt."""
    condition = w.b.icmp_signed("<=", first, I64(at)) if low else None
    if high:
        below = w.b.icmp_signed("<", I64(at), stop)
        condition = below if condition is None else w.b.and_(condition, below)
    return condition


@literal_op()
def add_taps(
    w: Writer, literals: dict[str, int],
    k: Any, s: Any, t: Any, x: Any, at: Any, step: Any, taps: Any, tap: Any, first: Any, stop: Any, left: Any,
) -> Any:  # fmt: skip
    """t[o] + taps[v] x[column o s + v] for v = 0 .. k-1 in turn.

    Columns first <= . < stop of x[at + column step] exist.
    """
    k, s = literals["k"], literals["s"]
    (mask,), rows = w.masks(left), w.tile.rows
    filters = [w.load(w.at(taps, tap, w.b.mul(step, I64(v))), mask) for v in range(k)]
    sums = {o: w.b.extract_value(t, o) for o in range(rows)}
    columns = (rows - 1) * s + k
    for column in range(columns):

        def add(to: dict[int, Any], column: int = column) -> dict[int, Any]:
            pixel = w.load(w.at(x, at, w.b.mul(step, I64(column))), mask)
            for v in range(k):
                o, rest = divmod(column - v, s)
                if rest == 0 and 0 <= o < rows:
                    to[o] = w.call("fma", pixel, filters[v], to[o])
            return to

        low, high = column < k - 1, column > columns - k
        sums = guarded(w, _exists(w, first, stop, column, low=low, high=high), sums, add)
    return w.map(t, lambda _, o, j: sums[o])


@literal_op()
def add_taps_back(
    w: Writer, literals: dict[str, int],
    k: Any, s: Any, before: Any, t: Any, g: Any, at: Any, step: Any, taps: Any, tap: Any, first: Any, stop: Any,
    left: Any,
) -> Any:  # fmt: skip
    """t[o] + taps[v] g[column j] with v = o + before - j s, j ascending, o counted from a multiple of s.

    Columns first <= j < stop of g[at + j step] exist.
    """
    k, s, before = literals["k"], literals["s"], literals["before"]
    (mask,), rows = w.masks(left), w.tile.rows
    filters = [w.load(w.at(taps, tap, w.b.mul(step, I64(v))), mask) for v in range(k)]
    sums = {o: w.b.extract_value(t, o) for o in range(rows)}
    doubtful = (before - k + rows) // s + 1  # with no padding on the right, the first that may not exist
    for j in range(-((k - 1 - before) // s), (rows - 1 + before) // s + 1):

        def add(to: dict[int, Any], j: int = j) -> dict[int, Any]:
            slope = w.load(w.at(g, at, w.b.mul(step, I64(j))), mask)
            for o in range(rows):
                v = o + before - j * s
                if 0 <= v < k:
                    to[o] = w.call("fma", slope, filters[v], to[o])
            return to

        sums = guarded(w, _exists(w, first, stop, j, low=j < 0, high=j >= doubtful), sums, add)
    return w.map(t, lambda _, o, j: sums[o])


@literal_op()
def add_products(
    w: Writer, literals: dict[str, int],
    k: Any, s: Any, n: Any, u0: Any, t: Any, x: Any, at: Any, row_step: Any, step: Any, g: Any, gt: Any, first: Any,
    stop: Any, first_row: Any, stop_row: Any, left: Any,
) -> Any:  # fmt: skip
    """t[(u - u0) k + v] + x[row u, column o s + v] g[o] for o = 0 .. n-1 in turn, a chain for each tap.

    Rows first_row <= u < stop_row and columns first <= . < stop of x[at + u row_step + column step] exist.
    """
    k, s, n, u0 = (literals[name] for name in ("k", "s", "n", "u0"))
    (mask,) = w.masks(left)
    slopes = [w.load(w.at(g, gt, w.b.mul(step, I64(o))), mask) for o in range(n)]
    sums = {i: w.b.extract_value(t, i) for i in range(w.tile.rows)}
    columns = (n - 1) * s + k
    for u in range(u0, u0 + w.tile.rows // k):

        def add_row(to: dict[int, Any], u: int = u) -> dict[int, Any]:
            for column in range(columns):

                def add(to: dict[int, Any], column: int = column) -> dict[int, Any]:
                    pixel = w.load(w.at(x, at, w.b.mul(row_step, I64(u)), w.b.mul(step, I64(column))), mask)
                    for v in range(k):
                        o, rest = divmod(column - v, s)
                        if rest == 0 and 0 <= o < n:
                            i = (u - u0) * k + v
                            to[i] = w.call("fma", pixel, slopes[o], to[i])
                    return to

                low, high = column < k - 1, column > columns - k
                to = guarded(w, _exists(w, first, stop, column, low=low, high=high), to, add)
            return to

        sums = guarded(w, _exists(w, first_row, stop_row, u, low=u < k - 1, high=u > 0), sums, add_row)
    return w.map(t, lambda _, i, j: sums[i])
