"""A step with one mistake: a tape whose ops of some kind, or one of whose layers, compute something else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minitl import ops
from minitl.arrays import Array
from minitl.ops.op import Attrs, Gradients, Op
from minitl.parameters import Parameter
from minitl.records import OpRecord, Var
from minitl.saved import Saved
from minitl.tape import Tape

Change = Callable[[Array], Array]
Forward = Callable[["Call"], Array]
Backward = Callable[["Call", Array], Sequence[Array | None]]


@dataclass(frozen=True)
class Call:
    """One call of an op in float64: what it reads, and the right results for any operands."""

    op: Op
    layer: str
    arrays: tuple[Array, ...]
    attrs: Attrs
    needs: Sequence[bool]
    rule: str

    @property
    def x(self) -> Array:
        """The op's first operand."""
        return self.arrays[0]

    def forward(self, *arrays: Array, **attrs: Any) -> Array:
        """The op's output for other operands or attributes; writes nothing."""
        return self._run(arrays or self.arrays, attrs, self.rule)[0]

    def backward(self, gy: Array, *arrays: Array, rule: str = "", **attrs: Any) -> Gradients:
        """The op's gradients for other operands, attributes or another rule."""
        arrays = arrays or self.arrays
        _, saved = self._run(arrays, attrs, rule or self.rule)
        params = arrays[self.op.activations :]
        return self.op.backward(saved, gy, attrs={**self.attrs, **attrs}, needs=self.needs, params=params)

    def input_gradient(self, gy: Array) -> Array:
        """The right gradient of the first operand."""
        return np.asarray(self.backward(gy)[0])

    def _run(self, arrays: Sequence[Array], attrs: Attrs, rule: str) -> tuple[Array, Saved]:
        copies = [np.array(a, order="C") for a in arrays]
        return self.op.forward(*copies, attrs={**self.attrs, **attrs}, needs=self.needs, rule=rule)


@dataclass(frozen=True)
class Mistake:
    """What is wrong, in words, in which ops, and what these then compute."""

    cause: str
    ops: tuple[str, ...]
    forward: Forward | None = None
    backward: Backward | None = None
    layer: str | None = None  # None: in all layers
    far: bool = True  # whether other layers feel it

    def applies(self, op: str, layer: str) -> bool:
        """Whether it is made there."""
        return op in self.ops and (self.layer is None or f".{layer}".endswith(f".{self.layer}"))

    def variants(self, *, forward: bool) -> Iterator[Mistake]:
        """Where it may be made: throughout, or in part; only those that do or do not change the forward."""
        if forward and self.forward:
            yield self
            if self.backward:
                yield replace(self, backward=None)
        elif not forward and self.backward:
            yield replace(self, forward=None)
            yield replace(self, forward=None, backward=_only(self.backward, operands=True))
            yield replace(self, forward=None, backward=_only(self.backward, operands=False), far=False)


def _only(wrong: Backward, *, operands: bool) -> Backward:
    """Wrong gradients of the operands only, or of the parameters only."""

    def backward(c: Call, gy: Array) -> Gradients:
        pairs = enumerate(zip(wrong(c, gy), c.backward(gy), strict=True))
        return tuple(bad if (i < c.op.activations) == operands else good for i, (bad, good) in pairs)

    return backward


NONE = Mistake("", ())


class _WrongOp:
    """One call of an op that makes the mistake; everything else is asked of the op itself."""

    def __init__(self, op: Op, layer: str, mistake: Mistake) -> None:
        self._op, self._layer, self._mistake = op, layer, mistake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._op, name)

    def forward(self, *arrays: Array, attrs: Attrs, needs: Sequence[bool], rule: str) -> tuple[Array, Saved]:
        before = tuple(np.array(a, order="C") for a in arrays)
        self.call = Call(self._op, self._layer, before, attrs, needs, rule)
        y, saved = self._op.forward(*arrays, attrs=attrs, needs=needs, rule=rule)
        wrong = self._mistake.forward(self.call) if self._mistake.forward else y
        return np.array(wrong, np.float64, order="C"), saved

    def backward(
        self, saved: Saved, gy: Array, *, attrs: Attrs, needs: Sequence[bool], params: Sequence[Array]
    ) -> Gradients:
        if self._mistake.backward is None:
            return self._op.backward(saved, gy, attrs=attrs, needs=needs, params=params)
        wrong = self._mistake.backward(self.call, gy)
        return tuple(
            np.array(g, np.float64, order="C") if needed and g is not None else None
            for g, needed in zip(wrong, needs, strict=True)
        )


class WrongTape(Tape):
    """A tape that makes one mistake, and on which a gate never folds into the weights it scales."""

    def __init__(self, mistake: Mistake | None = None) -> None:
        super().__init__(fused=False)
        self.mistake = mistake
        self.met: list[tuple[str, str]] = []  # op and layer of what ran

    def run(
        self, op: Op, *inputs: Var | Parameter, layer: str, role: str, rule: str = "", attrs: Attrs | None = None
    ) -> Var:
        """Compute the op, or what the mistake makes of it."""
        if op.name == "gated_conv":
            x, gate, weight = inputs
            inputs = (self.run(ops.scale, x, gate, layer="se.scale", role="se_scale"), weight)
            op, attrs, rule = ops.pointwise_conv, None, ""
        self.met.append((op.name, layer))
        mistake = self.mistake if self.mistake and self.mistake.applies(op.name, layer) else NONE
        wrong: Any = _WrongOp(op, layer, mistake)
        return super().run(wrong, *inputs, layer=layer, role=role, rule=rule, attrs=attrs)


class Step:
    """A right step, to be gone through again and again with a mistake somewhere.

    What a mistake does not reach is not computed anew.
    """

    def __init__(self, tape: WrongTape, output: Var, gy: Array) -> None:
        self.records = [record for record in tape.records if isinstance(record, OpRecord)]
        self.calls: list[Call] = [record.op.call for record in self.records]  # type: ignore[attr-defined]
        self.start, self.gy = output.source, gy
        self.right: dict[int, Gradients] = {}
        list(self.gradients(NONE))  # which fills in `right`

    def output(self, mistake: Mistake) -> Array:
        """What comes out where the mistake is made in the forward."""
        changed: dict[int, Array] = {}
        for number, (call, record) in enumerate(zip(self.calls, self.records, strict=True)):
            wrong = mistake.forward if mistake.applies(call.op.name, call.layer) else None
            if not wrong and changed.keys().isdisjoint(record.sources):
                continue
            flows = [changed.get(source, array) for source, array in zip(record.sources, call.arrays, strict=False)]
            moved = replace(call, arrays=(*flows, *call.arrays[len(flows) :]))
            changed[number] = np.array(wrong(moved) if wrong else moved.forward(), np.float64, order="C")
        return changed[self.start]

    def gradients(self, mistake: Mistake) -> Generator[tuple[str, Array], None, dict[int, Array]]:
        """Gradients of parameters that the mistake may change, by name, from the loss on down.

        Returns those of the variables by their source.
        """
        pending: dict[int, tuple[Array, bool]] = {self.start: (self.gy, True)}  # and whether it is the right one
        for number in reversed(range(self.start + 1)):
            if number not in pending:
                continue
            gy, right = pending.pop(number)
            call, record = self.calls[number], self.records[number]
            right &= not mistake.applies(call.op.name, call.layer)
            gradients = self._gradients(number, gy, mistake, right=right)
            flows = len(record.sources)
            for source, gradient, needed in zip(record.sources, gradients, record.needs, strict=False):
                if gradient is not None and needed:
                    before, was_right = pending.get(source, (0, True))
                    pending[source] = before + gradient, right and was_right
            of_parameters = zip(record.parameters, gradients[flows:], record.needs[flows:], strict=True)
            for parameter, gradient, needed in of_parameters:
                if gradient is not None and needed and not right:
                    yield f"grad_param.{parameter.name}", np.asarray(gradient)
        return {source: np.asarray(gradient) for source, (gradient, _) in pending.items()}

    def _gradients(self, number: int, gy: Array, mistake: Mistake, *, right: bool) -> Gradients:
        """Those of one call, remembered where they are the right ones."""
        if right and number in self.right:
            return self.right[number]
        call = self.calls[number]
        wrong = mistake.backward if mistake.applies(call.op.name, call.layer) else None
        gradients = tuple(wrong(call, gy) if wrong else call.backward(gy))
        if mistake is NONE:
            self.right[number] = gradients
        return gradients
