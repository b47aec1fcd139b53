"""A tape that computes the truth and, beside every array, how far a correct implementation may be from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from minitl.arrays import Array
from minitl.ops.op import Attrs, Gradients, Op
from minitl.oracle import bounds, exponentials
from minitl.oracle.bounds import Call, Precision
from minitl.records import OpRecord
from minitl.saved import Saved
from minitl.tape import K, Tape


@dataclass(eq=False)
class _Book:
    """What a tape and those of its checkpoints know in common; arrays are held, so their ids stay theirs."""

    errors: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)  # by the id of what the call saved


class CallTape(Tape):
    """A tape that runs op by op and makes a `Call` of each, with the loss rounded correctly."""

    def __init__(self) -> None:
        super().__init__(fused=False)

    def call(
        self, op: Op, arrays: Sequence[Array], errors: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> Call:
        """Run an op whose operands have these bounds."""
        before = tuple(np.array(a) if name in op.updates else a for name, a in zip(op.inputs, arrays, strict=False))
        y, saved = super()._forward(op, arrays, attrs, needs, rule)
        if op.name == "cross_entropy":
            y = exponentials.cross_entropy(arrays[0], arrays[1], saved)
        return Call(op, before, tuple(errors), attrs, needs, rule, y, saved)


class ErrorTape(CallTape):
    """A tape in float64 that knows a bound for each array (see `bounds`).

    `calls` are the ops that ran, and `updated` the bounds of running statistics, by the id of their array.
    """

    def __init__(self, precision: Precision, book: _Book | None = None) -> None:
        super().__init__()
        self.precision, self._book = precision, book or _Book()
        self.calls: list[Call] = []
        self.updated: dict[int, Array] = {}

    def error(self, array: Array) -> Array:
        """The bound of an array; one not met before is an input."""
        if id(array) not in self._book.errors:
            self._note(array, self.precision.entering(array))
        return self._book.errors[id(array)][1]

    def kept_error(self, saved: Saved, name: str) -> Array:
        """The bound of a kept buffer."""
        call = self._book.calls.get(id(saved))
        return call.kept[name] if call and name in call.kept else self.error(saved[name])

    def _note(self, array: Array, error: Array) -> None:
        self._book.errors[id(array)] = (array, np.broadcast_to(error, array.shape))

    def _fresh(self) -> Tape:
        tape = ErrorTape(self.precision, self._book)
        tape.calls, tape.updated = self.calls, self.updated
        return tape

    def _forward(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> tuple[Array, Saved]:
        call = self.call(op, arrays, [self.error(a) for a in arrays], attrs, needs, rule)
        bounds.forward(call, self.precision)
        self._note(call.y, call.y_error)
        self._book.calls[id(call.saved)] = call
        self.calls.append(call)
        for name, array in zip(op.inputs, arrays, strict=False):
            if name in call.updated:
                self.updated[id(array)] = call.updated[name]
        return call.y, call.saved

    def _backward(self, record: OpRecord, gy: Array) -> Gradients:
        error = self.error(gy)
        gradients = super()._backward(record, gy)
        call = self._book.calls[id(record.saved)]
        for gradient, bound in zip(gradients, bounds.backward(call, gy, error, gradients, self.precision), strict=True):
            if gradient is not None and bound is not None and gradient is not gy:
                self._note(gradient, bound)
        return gradients

    def _accumulate(self, pending: dict[K, Array], source: K, gradient: Array, gy: Array | None = None) -> None:
        before = pending.get(source)
        brought = self.error(gradient) + (0 if before is None else self.error(before))
        super()._accumulate(pending, source, gradient, gy)
        if before is not None:
            total = pending[source]
            self._note(total, brought + self.precision.rounding(1, np.abs(total) + brought))
