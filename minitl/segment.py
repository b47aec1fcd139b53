"""Parts of a network that run as one where that is possible, and else op by op.

What such a part would record op by op, it records on a shadow; from these records a fused program
is made, once for each shape and plan. So the two paths keep the same buffers by construction.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from minitl.arrays import Shape, dtype_name
from minitl.fused.frozen import weights_size
from minitl.fused.program import Program, compile_records
from minitl.layers import Layer, Pool
from minitl.parameters import Parameter
from minitl.pixels import PIXELS
from minitl.records import Var
from minitl.saved import Saved
from minitl.shadow import ShadowTape
from minitl.tape import Tape

MOST_READY = 1 << 17  # numbers
MOST_PROGRAMS = 16  # shapes and plans that a part remembers


class Segment:
    """Layers with one map going in and one coming out; `compose` runs them op by op."""

    def __init__(self) -> None:
        self._programs: dict[Any, Program | str] = {}
        self._last: tuple[Any, Program | str] = None, ""  # the one asked for last

    def __repr__(self) -> str:
        layers = list(self.layers())
        return f"<{type(self).__name__} of {len(layers)} layers, {layers[0].path} to {layers[-1].path}>"

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes programs of its own."""
        return {**self.__dict__, "_programs": {}, "_last": (None, "")}

    @abstractmethod
    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""

    @abstractmethod
    def compose(self, tape: Tape, x: Var) -> Var:
        """Run x (N, H, W, C) through the layers op by op."""

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Run x (N, H, W, C) through the layers: fused, unless the tape or the layers' rules do not allow it."""
        asked = x.shape, dtype_name(x.value.dtype), x.needs_grad
        program = self.program(tape, *asked) if tape.fused else "the tape does not fuse"
        if isinstance(program, str):
            tape.not_fused([layer.path for layer in self.layers()], program)
            return self.compose(tape, x)
        for layer in self.layers():
            layer.ran(tape)
        return tape.run_fused(program, x)

    def program(self, tape: Tape, shape: Shape, dtype: str, needs_grad: bool) -> Program | str:
        """What a map of that shape goes through on such a tape; or why it goes op by op."""
        asked = (shape, dtype, needs_grad, tape.training, tape.rerun)
        now = Layer.revision, Parameter.revision, asked
        if now != self._last[0]:  # asking all layers takes longer
            layers = list(self.layers())
            parameters = [p for layer in layers for p in layer.parameters.values()]
            forms = [(p, p.trained, p.value.shape, p.dtype, p.whole) for p in parameters]
            key = (*(layer.settings for layer in layers), *forms, asked)
            if key not in self._programs:
                if len(self._programs) >= MOST_PROGRAMS:
                    self._programs.clear()
                self._programs[key] = self._compile(shape, dtype, needs_grad, tape, parameters)
            self._last = now, self._programs[key]
        return self._last[1]

    def _compile(
        self, shape: Shape, dtype: str, needs_grad: bool, tape: Tape, parameters: Sequence[Parameter]
    ) -> Program | str:
        numbers = parameters[0].dtype if dtype == PIXELS else dtype
        for p in (p for p in parameters if not p.state):
            if p.dtype != numbers or not p.whole:
                return f"{p.name} is no C-contiguous {numbers} array"
        shadow = ShadowTape(training=tape.training, fused=False)
        shadow.rerun = tape.rerun
        x = shadow.variable(Var(shadow.phantom(shape, dtype)), needs_grad)
        self.compose(shadow, x)
        program = compile_records(shadow.records, shadow.holdings())
        for record in shadow.records:
            record.saved = Saved()
        return program


class Top(Segment):
    """A head and the pool after it, which run as one where nothing of the head trains."""

    def __init__(self, head: Segment, pool: Pool) -> None:
        super().__init__()
        self.head, self.pool = head, pool

    def layers(self) -> Iterator[Layer]:
        """The head's, and the pool."""
        yield from (*self.head.layers(), self.pool)

    def compose(self, tape: Tape, x: Var) -> Var:
        """Means (N, C) of what the head makes of x (N, H, W, C)."""
        return self.pool(tape, self.head(tape, x))


def run_frozen(tape: Tape, segments: Sequence[Segment], x: Var) -> tuple[Var, int]:
    """Run as many of the first segments as nothing is trained in, depth first; how many that were.

    One sample goes through several of them before the next one starts. They are as many as keep
    their weights, as the kernels read them, within half a megabyte (in float32): later segments have small maps
    and large weights.
    """
    done, programs, total, dtype = 0, list[Program](), 0, dtype_name(x.value.dtype)
    while tape.fused and not x.needs_grad and done + len(programs) < len(segments):
        shape = programs[-1].stages[-1].y if programs else x.shape
        program = segments[done + len(programs)].program(tape, shape, dtype, False)
        if isinstance(program, str) or program.trains:
            break
        count, dtype = weights_size(program), program.dtype  # which images in pixels have not
        if programs and total + count > MOST_READY:
            x, done, programs, total = tape.run_frozen(programs, x), done + len(programs), [], 0
        programs.append(program)
        total += count
    if programs:
        x, done = tape.run_frozen(programs, x), done + len(programs)
    return x, done
