"""Calls of kernels, recorded once as a table of numbers, and run on several threads.

A `Recorder` is given calls whose arguments are numbers, or places in arrays that are only known
later (`Place`: which array, and how many bytes into it). Calls are grouped in tasks: the calls of a
task run in their order on one thread, tasks between two barriers in any order on any thread. So a task must write
memory of its own, and what is computed does not depend on the number of threads. Each thread begins with its own
share of them: where tasks are the samples, in their order, a sample's maps stay in one processor's caches. `Table.run`
says which arrays they are and runs all tasks; there is no Python between them, and the GIL is released.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, update_wrapper
from typing import Any, Concatenate, NamedTuple, ParamSpec, cast

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.kernels import threads
from minitl.kernels.compile import Kernel, Lazily
from minitl.kernels.threads import LINE

compiled = Lazily("minitl.kernels.compiled.runner")

MOST_ARGUMENTS = 22
FUNCTION, FIRST = 0, 1  # columns of a row: the kernel's address, then its arguments
WIDTH = FIRST + MOST_ARGUMENTS
CALL = 12  # numbers that the runner is called with
NOTHING = np.zeros(1, np.uint8)  # stands for an array that a call has no use for
HEAD = object.__basicsize__  # bytes of an array before the address of its numbers (NumPy's PyArrayObject_fields)
SCRATCH = 1  # the array that every thread has its own of; number 0 stands for no array at all
TASKS = 8  # pieces of work, for up to as many threads


class Place(NamedTuple):
    """Somewhere in an array: its number among those that a run is given, and bytes into it."""

    array: int
    offset: int = 0

    def __add__(self, more: object) -> Place:
        assert isinstance(more, int)
        return Place(self.array, self.offset + more)


Argument = int | Place
Places = tuple[Place, ...]
Span = tuple[int, int]  # the first, and the one after the last


def given(count: int) -> Places:
    """Where that many arrays begin, of which a run is told: they are numbered from 2."""
    return tuple(Place(2 + i) for i in range(count))


def sample(place: Place, n: int, shape: Shape, dtype: str) -> Place:
    """Where sample n of the map of that shape at a place begins."""
    return place + n * nbytes(shape[1:], dtype)


def spans(count: int, multiple: int) -> Iterator[Span]:
    """`range(count)` in at most TASKS pieces whose lengths, but the last's, are multiples."""
    step = aligned(-(-count // TASKS), multiple)
    return ((first, min(first + step, count)) for first in range(0, count, step))


def aligned(count: int, multiple: int = 64) -> int:
    """The least multiple that is no smaller: by default bytes in whole cache lines."""
    return -(-count // multiple) * multiple


class Table:
    """Recorded calls. `scratch` is how many bytes of its own each thread needs."""

    def __init__(
        self, rows: Array, arrays: Array, starts: Array, kernels: Sequence[Kernel], scratch: int, most: int
    ) -> None:
        self.rows, self.arrays, self.starts, self.scratch = rows, arrays, starts, scratch
        self.kernels = kernels  # by row: their addresses are filled in when they first run
        self.most = most  # threads
        self._runner = 0
        self._spare: list[_Control] = []  # of runs that are over: one for each that there ever was at a time

    def run(self, *arrays: Array) -> None:
        """Run all tasks on these arrays, in the order of their numbers (2, 3, ...); returns when all are done."""
        if not self._runner:
            self.rows[:, FUNCTION] = [kernel.address for kernel in self.kernels]
            assert address(self.rows) == ctypes.c_int64.from_address(id(self.rows) + HEAD).value
            self._runner = compiled.runner(WIDTH, HEAD).address
        workers = min(threads.count(), self.most)
        scratch = np.empty(scratch_bytes(self.scratch, self.most), np.uint8) if self.scratch else None
        first = 0 if scratch is None else aligned(address(scratch))
        try:
            control = self._spare.pop()
        except IndexError:
            control = None
        if control is None or control.workers != workers:
            whole = (*map(address, (self.rows, self.arrays, self.starts)), len(self.starts) - 1)
            control = _Control(whole, workers, 2 + len(arrays))
        threads.call(self._runner, control.jobs([0, first, *map(id, arrays)], aligned(self.scratch)))
        self._spare.append(control)


class _Control:
    """What the runner is told: how many tasks are done, which are taken, then for each thread its arguments.

    Those are `whole` (the table), the addresses of the run's arrays, and room for a kernel's arguments.
    """

    def __init__(self, whole: tuple[int, ...], workers: int, given: int) -> None:
        self.workers, tasks = workers, whole[-1]
        own, before = aligned(CALL + given + MOST_ARGUMENTS, LINE), LINE + aligned(tasks, LINE)
        self._numbers = array("q", bytes(8 * (LINE + before + workers * own)))
        here = self._numbers.buffer_info()[0]
        start = -here % (8 * LINE) // 8  # of a cache line: what one thread writes, no other's line has
        self._nothing = start, start + before, array("q", bytes(8 * before))
        done, self._firsts = here + 8 * start, range(start + before, start + before + workers * own, own)
        self._jobs = [here + 8 * first for first in self._firsts]
        for number, (first, job) in enumerate(zip(self._firsts, self._jobs, strict=True)):
            bases = job + 8 * CALL
            known = [given, bases, bases + 8 * given, done, done + 8 * LINE, number, workers, threads.let_run()]
            self._numbers[first : first + CALL] = array("q", [*whole, *known])

    def jobs(self, given: list[int], step: int) -> list[int]:
        """The addresses of the arguments of each thread, for these arrays (see `compiled.runner`)."""
        start, stop, nothing = self._nothing
        self._numbers[start:stop] = nothing
        for first in self._firsts:
            self._numbers[first + CALL : first + CALL + len(given)] = array("q", given)
            given[SCRATCH] += step
        return self._jobs


def address(values: Any) -> int:  # an array; NumPy says only since 2.5 that arrays are buffers
    """Where the array's first number is."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(values))  # 5 times as fast
    except (TypeError, ValueError):  # not to be written to, or empty
        return int(values.__array_interface__["data"][0])


def scratch_bytes(size: int, tasks: int) -> int:
    """Bytes of scratch memory, aligned: `size` for each thread in force, of which no more than `tasks` are used."""
    return min(threads.count(), tasks) * aligned(size) + 64 if size else 0


class Recorder:
    """Collects calls. Arrays are numbered from 2 in the order that `Table.run` is given them."""

    def __init__(self) -> None:
        self._rows: list[tuple[Kernel, tuple[Argument, ...]]] = []
        self._starts: list[tuple[int, int]] = []  # a task's first row, and how many tasks must be done before it
        self._before = self._scratch = 0

    def task(self) -> None:
        """Begin a new task."""
        self._starts.append((len(self._rows), self._before))

    def barrier(self) -> None:
        """What follows waits for all tasks so far."""
        self._before = len(self._starts)

    def call(self, kernel: Kernel, *arguments: Argument) -> None:
        """Add a call to the current task."""
        assert len(arguments) <= MOST_ARGUMENTS
        assert self._starts
        self._rows.append((kernel, arguments))

    def scratch(self, nbytes: int, offset: int = 0) -> Place:
        """A place `offset` bytes into the thread's own memory, with room for `nbytes`."""
        self._scratch = max(self._scratch, offset + nbytes)
        return Place(SCRATCH, offset)

    @property
    def size(self) -> tuple[int, int]:
        """Scratch bytes per thread, and the number of tasks."""
        return self._scratch, len(self._starts)

    def table(self, most: int = 0) -> Table:
        """All that was recorded, for at most as many threads as there are tasks, or `most`."""
        rows = np.zeros((len(self._rows), WIDTH), np.int64)
        arrays = np.zeros((len(self._rows), WIDTH), np.int64)
        for i, (_, arguments) in enumerate(self._rows):
            for j, argument in enumerate(arguments, FIRST):
                arrays[i, j], rows[i, j] = argument if isinstance(argument, Place) else (0, argument)
        starts = np.array([*self._starts, (len(self._rows), 0)], np.int64)
        kernels = [kernel for kernel, _ in self._rows]
        return Table(rows, arrays, starts, kernels, self._scratch, most or len(self._starts))


def recorded(record: Callable[[Recorder], object]) -> Recorder:
    """What `record` tells a recorder."""
    recorder = Recorder()
    record(recorder)
    return recorder


P = ParamSpec("P")


def table_of(record: Callable[Concatenate[Recorder, P], None]) -> Callable[P, Table]:
    """The table of what `record(recorder, ...)` records: made once for each of its arguments."""

    def made(*given: Any, **named: Any) -> Table:
        return recorded(lambda to: record(to, *given, **named)).table()

    return cast(Callable[P, Table], update_wrapper(lru_cache(maxsize=1024)(made), record))
