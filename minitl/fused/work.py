"""How a fused run is done: steps for each unit of samples, run by all threads between barriers.

A *unit* is some consecutive samples, whole groups of every map (see `kernels.groups`). Steps are given one
after another; a barrier runs all of them on every unit, and a unit stays with one thread, so that
what a step made is still in the cache for the next. What the steps call is recorded once
per program and then replayed. `dry` work computes nothing: only what is allocated and let go of
happens, at the same moments, which is how a step's memory is predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minitl.arrays import Array, Shape
from minitl.fused.program import Program, Stage
from minitl.kernels.tasks import Place, Recorder, scratch_bytes

PASSING = 6  # float64 vectors per channel that the few numbers of a norm take while they are made

Step = Callable[..., None]  # of a recorder, a unit and the places of its arrays


class Unit:
    """Samples first .. stop - 1, unit `number` of all."""

    def __init__(self, number: int, first: int, stop: int) -> None:
        self.number, self.first, self.stop = number, first, stop


class Work:
    """The steps of one run of `program` on `count` samples; `allocate(shape, dtype)` makes every array."""

    def __init__(
        self, program: Program, count: int, dtype: str, allocate: Callable[[Shape, str], Array], *, dry: bool
    ) -> None:
        self.program, self.count, self.dtype, self.allocate, self.dry = program, count, dtype, allocate, dry
        self.size = min(program.unit, count)
        self._steps: list[tuple[Step, int]] = []
        self._arrays: list[Array] = []

    @property
    def units(self) -> int:
        """How many units there are."""
        return -(-self.count // self.size)

    def unit(self, number: int) -> Unit:
        """Unit `number`."""
        return Unit(number, number * self.size, min((number + 1) * self.size, self.count))

    def enter(self, stage: Stage) -> None:
        """Take note that what follows is for that stage."""

    def new(self, shape: Shape, dtype: str = "") -> Array:
        """An uninitialised array."""
        return self.allocate(shape, dtype or self.dtype)

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """An array of zeros."""
        array = self.allocate(shape, dtype)
        if not self.dry:
            array[...] = 0
        return array

    def numbers(self, count: int, passing: int, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
        """`count` vectors (C,) that `make` gives; it takes `passing` float64 numbers meanwhile."""
        if not self.dry:
            return make()
        _meanwhile = self.allocate((passing,), "float64")
        return tuple(self.new((passing // PASSING,)) for _ in range(count))

    def each(self, step: Step, *arrays: Array) -> None:
        """Do `step` on every unit, after the steps before it."""
        self._steps.append((step, len(arrays)))
        self._arrays += arrays

    def barrier(self, name: Any) -> None:
        """Run the steps given so far; `name` is that of these steps within the program."""
        steps, arrays = self._steps, self._arrays
        self._steps, self._arrays = [], []

        def record(to: Recorder, units: int) -> None:
            for number in range(units):
                at = 2
                to.task()
                for step, count in steps:
                    step(to, self.unit(number), *(Place(i) for i in range(at, at + count)))
                    at += count

        def scratch() -> tuple[int, int]:
            first = Recorder()
            record(first, 1)
            return first.size[0], self.units

        if steps:
            self.recorded(name, lambda to: record(to, self.units), scratch, *arrays)

    def recorded(
        self, name: Any, record: Callable[[Recorder], None], scratch: Callable[[], tuple[int, int]], *arrays: Array
    ) -> None:
        """Run the tasks that `record(recorder)` records, on these arrays; `scratch()` is `Recorder.size` of them."""
        if self.dry:
            self.allocate((scratch_bytes(*scratch()),), "uint8")
            return
        if name not in self.program.tables:
            recorder = Recorder()
            record(recorder)
            self.program.tables[name] = recorder.table()
        self.program.tables[name].run(*arrays)
