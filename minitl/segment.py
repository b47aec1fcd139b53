"""Parts of a network that run as one where that is possible, and else op by op.

What such a part would record op by op, it records on a shadow; from these records a fused program
is made, once for each shape and plan. So the two paths keep the same buffers by construction.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from minitl.arrays import Shape, dtype_name
from minitl.fused.program import Program, compile_records
from minitl.layers import Layer
from minitl.ops.approximate import RULES
from minitl.records import Var
from minitl.saved import Saved
from minitl.shadow import ShadowTape
from minitl.tape import Tape

MOST_PROGRAMS = 16  # shapes and plans that a part remembers


class Segment:
    """Layers with one map going in and one coming out; `compose` runs them op by op."""

    def __init__(self) -> None:
        self._programs: dict[Any, Program | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes programs of its own."""
        return {**self.__dict__, "_programs": {}}

    @abstractmethod
    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""

    @abstractmethod
    def compose(self, tape: Tape, x: Var) -> Var:
        """Run x (N, H, W, C) through the layers op by op."""

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Run x (N, H, W, C) through the layers: fused, unless the tape or the layers' rules do not allow it."""
        program = self._program(tape, x) if tape.fused else None
        if program is None:
            return self.compose(tape, x)
        for layer in self.layers():
            layer.ran(tape)
        return tape.run_fused(program, x)

    def _program(self, tape: Tape, x: Var) -> Program | None:
        dtype = dtype_name(x.value.dtype)
        settings = tuple(layer.settings for layer in self.layers())
        key = (settings, x.shape, dtype, x.needs_grad, tape.training, tape.rerun)
        if key not in self._programs:
            if len(self._programs) >= MOST_PROGRAMS:
                self._programs.clear()
            self._programs[key] = self._compile(x.shape, dtype, x.needs_grad, tape)
        return self._programs[key]

    def _compile(self, shape: Shape, dtype: str, needs_grad: bool, tape: Tape) -> Program | None:
        shadow = ShadowTape(training=tape.training, fused=False)
        shadow.rerun = tape.rerun
        x = shadow.variable(Var(shadow.phantom(shape, dtype)), needs_grad)
        self.compose(shadow, x)
        kept_otherwise = any(record.rule in RULES for record in shadow.records)  # run op by op
        program = None if kept_otherwise else compile_records(shadow.records, shadow.holdings())
        for record in shadow.records:
            record.saved = Saved()
        return program
