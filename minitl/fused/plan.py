"""What a run does, step by step: made once for a program, and played for every batch.

Whoever makes a plan (`forward`, `backward`, `frozen`) sees no arrays but their slots. Playing it then takes little
Python: arrays are made, tables of calls run, and an array is let go of after the step that reads it last.
`dry` work computes nothing: only what is allocated and let go of happens, at the same moments, which is how
a step's memory is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from minitl.arrays import Array, Shape
from minitl.fused.program import Stage
from minitl.kernels.tasks import NOTHING, Place, Recorder, Table, recorded, scratch_bytes
from minitl.parameters import Parameter
from minitl.pixels import table
from minitl.records import Take


class Slot(NamedTuple):
    """Where a plan finds an array, and of what shape it is."""

    number: int
    shape: Shape


NO_SLOT = Slot(0, NOTHING.shape)  # where `NOTHING` is

Arrays = list[Any]  # by the numbers of their slots; None where there is none (any more)
Record = Callable[[Recorder], object]


class Work:
    """Does the steps of a plan on arrays that `allocate(shape, dtype)` makes.

    `take(parameter, gradient)` is offered each gradient once nothing will read the parameter any more.
    """

    def __init__(self, allocate: Callable[[Shape, str], Array], take: Take | None = None, *, dry: bool) -> None:
        self.allocate, self.take, self.dry = allocate, take, dry

    def enter(self, stage: Stage) -> None:
        """Take note that what follows is for that stage."""

    def new(self, shape: Shape, dtype: str) -> Array:
        """An uninitialised array."""
        return self.allocate(shape, dtype)

    def do(self, function: Callable[..., object], arrays: Arrays) -> None:
        """Compute something with NumPy, which takes no memory worth counting."""
        if not self.dry:
            function(*arrays)

    def run(self, table: Callable[[], Table], size: Callable[[], tuple[int, int]], arrays: Arrays) -> None:
        """Run a table of calls, whose `Recorder.size` is that, on these arrays."""
        if self.dry:
            self.allocate((scratch_bytes(*size()),), "uint8")
        else:
            table().run(*arrays)


class Plan:
    """Steps on arrays of some `shapes` and on those of `parameters`, which it is given in this order."""

    def __init__(self, dtype: str, shapes: Iterable[Shape], parameters: Iterable[Parameter]) -> None:
        self.dtype, self._count = dtype, 1
        self._steps: list[tuple[Callable[[Work, Arrays], None], Sequence[Slot]]] = []
        self._played: list[tuple[Callable[[Work, Arrays], None], list[int]]] = []
        self._results: list[int] = []
        self.inputs = [self._slot(shape) for shape in shapes]
        self.values = {p: self._slot(p.value.shape) for p in parameters}
        self._given = self._count

    def _slot(self, shape: Shape) -> Slot:
        self._count += 1
        return Slot(self._count - 1, shape)

    def _step(self, step: Callable[[Work, Arrays], None], *slots: Slot) -> None:
        self._steps.append((step, slots))

    def enter(self, stage: Stage) -> None:
        """What follows is for that stage."""
        self._step(lambda work, at: work.enter(stage))

    def new(self, shape: Shape, dtype: str = "") -> Slot:
        """An uninitialised array."""
        slot, kind = self._slot(shape), dtype or self.dtype
        number = slot.number

        def make(work: Work, at: Arrays) -> None:
            at[number] = work.new(shape, kind)

        self._step(make, slot)
        return slot

    def zeros(self, shape: Shape, dtype: str) -> Slot:
        """An array of zeros."""
        slot = self.new(shape, dtype)
        self.do(lambda array: array.fill(0), slot)
        return slot

    def table(self, stage: Stage) -> Slot:
        """The numbers that pixels stand for, where the stage's input is images in pixels (see `minitl.pixels`)."""
        if not (by := stage.normalisation):
            return NO_SLOT
        slot = self.new((256, stage.x[3]))
        self.do(lambda numbers: np.copyto(numbers, table(by, self.dtype)), slot)
        return slot

    def do(self, function: Callable[..., object], *slots: Slot) -> None:
        """Call `function` on these arrays."""
        numbers = [slot.number for slot in slots]
        self._step(lambda work, at: work.do(function, [at[i] for i in numbers]), *slots)

    def recorded(self, record: Record, *slots: Slot, part: Record | None = None, tasks: int = 0) -> None:
        """Run the tasks that `record(recorder)` records on these arrays.

        What a `part` of them takes tells the scratch memory, by default all; and their number, unless that is given.
        """
        numbers = [slot.number for slot in slots]

        @cache
        def table() -> Table:
            return recorded(record).table(tasks)

        @cache
        def size() -> tuple[int, int]:
            scratch, count = recorded(part or record).size
            return scratch, tasks or count

        self._step(lambda work, at: work.run(table, size, [at[i] for i in numbers]), *slots)

    def offer(self, parameter: Parameter, gradient: Slot) -> None:
        """Offer a gradient to who takes it; a result that was taken is None."""

        def hand(work: Work, at: Arrays) -> None:
            if at[gradient.number] is not None and work.take and work.take(parameter, at[gradient.number]):
                at[gradient.number] = None

        self._step(hand, gradient)

    def finish(self, results: Iterable[Slot | None]) -> Plan:
        """That was all; playing it gives these arrays."""
        self._results = [slot.number if slot else self._count for slot in results]
        last = dict.fromkeys(range(1, self._given), 0)
        last |= {slot.number: i for i, (_, slots) in enumerate(self._steps) for slot in slots}
        ends: list[list[int]] = [[] for _ in self._steps]
        for number in last.keys() - {0, *self._results}:
            ends[last[number]].append(number)
        self._played = [(step, end) for (step, _), end in zip(self._steps, ends, strict=True)]
        self._steps.clear()
        return self

    def play(self, work: Work, arrays: Arrays) -> Arrays:
        """Do all steps, on the arrays that are in the list, which is emptied; the results."""
        at = [NOTHING, *arrays, *[None] * (self._count - self._given + 1)]
        arrays.clear()
        for step, ends in self._played:
            step(work, at)
            for number in ends:
                at[number] = None
        return [at[number] for number in self._results]


class Tasks:
    """Steps of kernel calls that are yet to be recorded: a task each, without scratch memory, or all `one` task."""

    def __init__(self, plan: Plan, *, one: bool = False) -> None:
        self.plan, self._one = plan, one
        self._steps: list[tuple[Callable[..., None], tuple[Slot, ...]]] = []

    def add(self, step: Callable[..., None], *slots: Slot) -> None:
        """Record what `step` does with a recorder and the places of these arrays."""
        self._steps.append((step, slots))

    def _take(self, first: int) -> tuple[Record, list[Slot]]:
        """How to record all that was added since the last time, and the arrays, the first of which has that number."""
        steps, self._steps = self._steps, []

        def record(to: Recorder) -> None:
            at = first
            for number, (step, slots) in enumerate(steps):
                if not (number and self._one):
                    to.task()
                step(to, *(Place(at + i) for i in range(len(slots))))
                at += len(slots)

        return record, [slot for _, slots in steps for slot in slots]

    def run(self) -> None:
        """Run all that was added since the last time."""
        if self._steps:
            part, tasks = (None, 1) if self._one else (partial(Recorder.scratch, nbytes=0), len(self._steps))
            record, slots = self._take(2)
            self.plan.recorded(record, *slots, part=part, tasks=tasks)

    def run_before(self, part: Callable[[Recorder, int], None], count: int, *slots: Slot, tasks: int = 0) -> None:
        """Run that and then, when all of it is done, `part(recorder, number)` for numbers below `count`.

        The parts are alike; they are of these arrays, and `tasks` threads at most, by default `count`.
        """
        prepare, more = self._take(2 + len(slots))

        def record(to: Recorder) -> None:
            prepare(to)
            to.barrier()
            for number in range(count):
                part(to, number)

        self.plan.recorded(record, *slots, *more, part=lambda to: part(to, 0), tasks=tasks or count)
