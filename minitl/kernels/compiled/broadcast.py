"""The kernel that runs a formula on maps, on vectors per channel and on numbers (see `kernels.broadcast`).

In tiles of one vector: the compiler makes no vectors of a loop whose result may be what it reads. They go over a map
in the order in which it lies in memory: from there it comes twice as fast as in tiles of several rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir

from minitl.arrays import itemsize
from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments
from minitl.kernels.compiled.tile import FLOATS, I64, Writer, literal_op, nothing, wide, zeros
from minitl.kernels.rules import digest, formula
from minitl.kernels.target import target

GIVEN = 3  # where in a kernel's arguments the formula's begin


@cache
def broadcast(name: str, dtype: str, takes: str, makes: str, double: bool, masked: bool) -> Kernel:
    """What the formula gives for positions m0..m1."""
    version, bits, mask = sources() + digest(name, ""), 64 if double else 8 * itemsize(dtype), int(masked)
    count, lanes, narrow = GIVEN + len(takes + makes), target().lanes(bits // 8), 8 * itemsize(dtype)

    @kernel
    def run(p: int) -> None:
        given = arguments(p, count, version)
        m0, m1, channels, w = given[0], given[1], given[2], wide(1, bits, mask)
        for m in range(m0, m1):
            for c in range(0, channels, lanes):
                write(name, takes, makes, narrow, zeros(1, w), given, m, c, channels - c)

    return run


@literal_op(nothing)
def write(
    w: Writer, literals: dict[str, Any],
    name: Any, takes: Any, makes: Any, narrow: Any, t: Any, given: Any, m: Any, c: Any, left: Any,
) -> None:  # fmt: skip
    """Write what the formula gives for position m and a vector of channels."""
    value, takes, makes = formula(literals["name"]), literals["takes"], literals["makes"]
    (mask,), own, channels = w.masks(left), FLOATS[w.tile.bits], w.b.extract_value(given, 2)
    kinds = {"m": FLOATS[literals["narrow"]], "c": FLOATS[literals["narrow"]], "d": FLOATS[64]}

    def place(number: int, kind: str) -> Any:
        at = w.b.add(w.b.mul(m, channels), c) if kind == "m" else c
        return w.at(w.b.extract_value(given, GIVEN + number), at, kind=kinds[kind])

    def read(number: int, kind: str) -> Any:
        if kind in kinds:
            return w.cast(w.load(place(number, kind), mask, kinds[kind]), own)
        there = w.b.extract_value(given, GIVEN + number)
        found = w.b.bitcast(there, FLOATS[64]) if kind == "i" else w.b.load(w.at(there, kind=FLOATS[64]))
        return w.splat(found if own == FLOATS[64] else w.b.fptrunc(found, own))

    found = value(*(w.trace(read(number, kind)) for number, kind in enumerate(takes)))  # before any is written
    for number, (kind, result) in enumerate(zip(makes, found if len(makes) > 1 else (found,), strict=True)):
        if kind == "b":
            _note(w, w.b.extract_value(given, GIVEN + len(takes) + number), result.value, mask)
        else:
            w.save(w.cast(result.value, kinds[kind]), place(len(takes) + number, kind), mask)


def _note(w: Writer, address: Any, v: Any, mask: Any) -> None:
    """Set bits of the int64 at the address where a lane is not finite."""
    bad = w.b.fcmp_unordered("!=", w.b.fsub(v, v), w.constant(0.0))
    bad = bad if mask is None else w.b.and_(bad, mask)
    place = w.at(address, kind=I64)
    w.b.store(w.b.or_(w.b.load(place), w.b.zext(w.b.bitcast(bad, ir.IntType(w.lanes)), I64)), place)
