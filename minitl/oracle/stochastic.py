"""Bounds of whole networks: measured by stochastic arithmetic, since derived ones would allow anything.

A derived bound takes every error to be as large as it can be, and of the worst sign. Over two or three blocks with
batch statistics it grows tenfold a layer, beyond the values themselves: of the five built-in networks, `ErrorTape`
finds no finite float32 bound for two (a variance may be 0), and allows the loss to be off by 0.05, 1.1 and 2.8 times
itself in the others, where 1e-5 is measured and a step in TF32 is off by 2e-5 and more.

So here the step is run in float64 again and again, and after every operation each value is moved at random, by at
most the bound that the operation has by itself, as if what it reads were exact (Parker 1997, Monte Carlo arithmetic;
Vignes 1993). A result's bound is FACTOR times the most that it was off in RUNS runs. The bounds of the operations are
`bounds`', derived and for the worst case, and so several times the roundings that happen; a right result stays inside
with much to spare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from minitl.arrays import Array
from minitl.ops.op import Attrs, Gradients, Op
from minitl.oracle import bounds
from minitl.oracle.bounds import PRECISIONS, Call
from minitl.oracle.data import Source
from minitl.oracle.error_tape import CallTape
from minitl.records import OpRecord
from minitl.saved import Saved
from minitl.tape import Tape

RUNS, FACTOR = 16, 4.0
FLOAT32 = PRECISIONS["f32"]
TO_FLOAT64 = PRECISIONS["f64"].u / FLOAT32.u  # bounds are proportional to the unit roundoff


@dataclass(eq=False)
class Noise:
    """What the runs of a step have in common: each operation's own bounds, in the order they come.

    The first run, without a `source`, fills them in and adds nothing.
    """

    calls: list[Call] = field(default_factory=list)
    gradients: list[Sequence[Array | None]] = field(default_factory=list)
    source: Source | None = None
    read: list[Array] = field(default_factory=list)  # what each operation's first operand was in the last run
    walked: int = 0  # operations whose backward has run

    def begin(self, source: Source) -> None:
        """Another run, with noise."""
        self.source, self.read, self.walked = source, [], 0

    def of(self, bound: Array) -> Array:
        """Random numbers within the bound."""
        assert self.source
        return self.source.uniform(np.shape(bound), -1.0, 1.0) * bound


class NoisyTape(CallTape):
    """A tape in float64 that moves every value it computes within that operation's bound."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self.noise = noise
        self._calls: dict[int, Call] = {}  # of the first run, by the id of what the call saved

    def _fresh(self) -> Tape:
        return NoisyTape(self.noise)

    def _forward(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> tuple[Array, Saved]:
        made, noise = self.call(op, arrays, [np.zeros(a.shape) for a in arrays], attrs, needs, rule), self.noise
        y, saved = made.y, made.saved
        noise.read.append(np.array(arrays[0]))
        if noise.source is None:
            bounds.forward(made, FLOAT32)
            noise.calls.append(made)
            self._calls[id(saved)] = made
            return y, saved
        call = noise.calls[len(noise.read) - 1]
        y += noise.of(call.y_error)
        for name, bound in call.kept.items():
            if name in saved and saved[name].dtype.kind == "f":
                saved[name][...] += noise.of(bound)
        for name, array in zip(op.inputs, arrays, strict=False):
            if name in call.updated:
                array += noise.of(call.updated[name])
        return y, saved

    def _backward(self, record: OpRecord, gy: Array) -> Gradients:
        gradients, noise = super()._backward(record, gy), self.noise
        if noise.source is None:
            call = self._calls[id(record.saved)]
            noise.gradients.append(bounds.backward(call, gy, np.zeros(gy.shape), gradients, FLOAT32))
            return gradients
        own = noise.gradients[noise.walked]
        noise.walked += 1
        moved = zip(gradients, own, strict=True)
        return tuple(g if g is None or e is None or g is gy else g + noise.of(e) for g, e in moved)
