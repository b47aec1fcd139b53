"""Formulas of maps (M, C), of vectors per channel (C,) and of numbers, which broadcast as they do in NumPy.

A formula is a Python function of the arithmetic in `formula`, written once, in the file that it belongs to. NumPy
runs it on arrays; a kernel runs it on some positions of a map, in tiles, and gives the same bits. What it is given
and what it gives is said by a letter each:

    m   a map                                      n   a float64 number, by its address
    c   a vector per channel                       i   a number itself
    d   a vector per channel of float64            b   (given back) only noted where it is not finite
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from minitl.arrays import Array, Shape, nbytes, positions
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.formula import Formula, Traced
from minitl.kernels.rules import register
from minitl.kernels.target import masked
from minitl.kernels.tasks import Place, Recorder, Span, given, spans, table_of

compiled = Lazily("minitl.kernels.compiled.broadcast")


class Broadcast:
    """A formula, and what it is of: letters of what it is given (`takes`) and of what it gives (`makes`).

    It computes in the dtype of its maps and vectors, or, if it is `wide`, in float64: then what it gives is rounded
    once. What it gives may be written over what it is given.
    """

    def __init__(self, function: Formula, takes: str, makes: str, *, wide: bool = False) -> None:
        self.function, self.takes, self.makes, self.wide = function, takes, makes, wide
        self.name = f"{function.__module__}.{function.__qualname__}"
        register(self.name, function, {})

    def of(self, *given: Array | float, dtype: str) -> tuple[Array, ...]:
        """What it gives of arrays that broadcast, not yet rounded: NumPy's lines, which define it."""
        kind = np.dtype("float64" if self.wide else dtype)
        values = (np.asarray(value, kind)[()] for value in given)
        with np.errstate(all="ignore"):
            found = self.function(*values)
        return found if len(self.makes) > 1 else (found,)

    def into(self, out: Sequence[Array], *given: Array | float) -> None:
        """Write what it gives of these arrays, rounded, to `out`."""
        for to, found in zip(out, self.of(*given, dtype=out[0].dtype.name), strict=True):
            to[...] = found

    def workspace(self, channels: int, dtype: str) -> int:
        """Bytes that `into` of vectors of that dtype holds in passing: what it is given, widened, and what it makes."""
        widened = self.takes.count("c") * (self.wide and dtype != "float64")
        return (widened + self._made) * nbytes((channels,), "float64" if self.wide else dtype)

    @cached_property
    def _made(self) -> int:
        """The most vectors that the lines make and hold at once, what they give included."""
        held = _Held()
        self.function(*(1.0 if kind == "i" else Traced(held.make, None, "float64") for kind in self.takes))
        return held.most

    def over(self, out: Array, *given: Array) -> None:
        """Write what it gives of maps and vectors to a map, on all threads."""
        if interpreted():
            self.into((out,), *given)
        else:
            _table(self, out.shape, out.dtype.name).run(*given, out)

    def call(self, record: Recorder, span: Span, channels: int, dtype: str, *arguments: Place | float) -> None:
        """Record it for positions `span` of maps; places are of what it is given, then of what it gives."""
        kernel = compiled.broadcast(
            self.name, dtype, self.takes, self.makes, self.wide, masked(channels, "float64" if self.wide else dtype)
        )
        record.call(kernel, *span, channels, *map(_as_argument, self.takes + self.makes, arguments))

    @cached_property
    def checked(self) -> Broadcast:
        """The same formula, of whose results nothing is written, but only whether they are finite."""
        return Broadcast(self.function, self.takes, "b" * len(self.makes), wide=self.wide)


class _Held:
    """Counts what a formula's lines make, for as long as they hold it."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def make(self, *_: object) -> _Made:
        """What an instruction gives."""
        return _Made(self)


class _Made:
    def __init__(self, held: _Held) -> None:
        self.held = held
        held.now += 1
        held.most = max(held.most, held.now)

    def __del__(self) -> None:
        self.held.now -= 1


def _as_argument(kind: str, argument: Place | float) -> Place | int:
    """A place, or a float64 number as the int64 of the same bits."""
    if isinstance(argument, Place):
        return argument
    assert kind == "i"
    return int(struct.unpack("q", struct.pack("d", argument))[0])


@table_of
def _table(record: Recorder, formula: Broadcast, shape: Shape, dtype: str) -> None:
    """What it is given, and what it gives."""
    places = given(len(formula.takes + formula.makes))
    for span in spans(positions(shape), 1):
        record.task()
        formula.call(record, span, shape[-1], dtype, *places)
