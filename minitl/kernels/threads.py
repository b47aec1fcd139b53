"""Threads for the kernels: call machine code on several of them at once.

Which thread does a task changes only when it is done, never what it computes (see `tasks`). A helper that has
nothing to do watches for the next job for some two milliseconds, longer than Python takes between two tables
of a step, and then sleeps: to wake it takes a tenth of a millisecond.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from minitl.arrays import is_count
from minitl.errors import ValueRangeError, brief
from minitl.kernels.compile import Lazily

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

compiled = Lazily("minitl.kernels.compiled.runner")

MOST = 1024  # threads
LINE = 8  # numbers in a cache line: each helper's mailbox has one of its own
PATIENCE = 60000  # looks into the mailbox, some 30 ns each
NAP = 2e-5  # seconds: of who waits for a helper that the system has made to wait

_threads = os.cpu_count() or 1
_team: Team | None = None


def set_threads(count: int) -> None:
    """Use `count` threads for the kernels from now on (the default is the number of cores)."""
    global _threads, _team
    if not is_count(count, least=1) or count > MOST:
        raise ValueRangeError(op="set_threads", expected=f"a count from 1 to {MOST}", got=brief(count))
    _threads = count
    if _team is not None and _team.helpers < count - 1:  # a larger one stays: its helpers sleep
        _team = None


def count() -> int:
    """How many threads are in use."""
    return _threads


def call(function: int, jobs: Sequence[int]) -> None:
    """Call the kernel at that address once for each job, on a thread of its own where one is free; return when done.

    A job is the address of the kernel's arguments. Jobs share their work, so one that was never begun is not missed.
    """
    global _team
    if len(jobs) == 1:
        native(function)(jobs[0])
        return
    team = _team = _team or Team(_threads - 1)
    team.call(function, jobs[0], jobs[1 : 1 + team.helpers])


@cache
def native(function: int) -> Callable[[int], None]:
    """The machine code as a Python function, which releases the GIL."""
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(function)


@cache
def let_run() -> int:
    """The address of the system's function that lets another thread run on this processor."""
    library, name = ("kernel32", "SwitchToThread") if sys.platform == "win32" else (None, "sched_yield")
    return ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value or 0


class Team:
    """Helpers, and their mailboxes (see `compiled.runner`)."""

    def __init__(self, helpers: int) -> None:
        from concurrent.futures import ThreadPoolExecutor  # takes a while to import

        self.helpers = helpers
        self._pool: ThreadPoolExecutor = ThreadPoolExecutor(helpers, "minitl")
        self._mailboxes = array("q", bytes(8 * LINE * (helpers + 1)))
        self._first = -(-self._mailboxes.buffer_info()[0] // 64) * 64
        self._posting = Lock()

    def call(self, function: int, own: int, others: Sequence[int]) -> None:
        """Do `own` on this thread and the others on the helpers'."""
        rows = array("q", [number for job in others for number in (job, job)])
        late = array("q", [len(others)])
        known = len(others), self._first, rows.buffer_info()[0]
        request = array("q", [function, own, *known, PATIENCE // 4, late.buffer_info()[0]])
        posted = array("q", known)
        try:
            with self._posting:
                native(compiled.post().address)(posted.buffer_info()[0])
                asleep = [i for i in range(len(others)) if rows[2 * i + 1] == compiled.ASLEEP]
                for i in asleep:
                    self._pool.submit(self._serve, self._first + 8 * LINE * i, function)
            native(compiled.leader().address)(request.buffer_info()[0])
        except BaseException:  # Ctrl-C
            _forget_team()  # one of them may never have been woken
            raise
        finally:
            self._wait(request, late)

    def _wait(self, request: array[int], late: array[int]) -> None:
        """Until none is at work any more: then what they write to may be let go of, and not before, Ctrl-C or not."""
        request[1], interrupted = 0, None
        while late[0]:  # a helper's thread was made to wait by the system: let it run
            try:
                time.sleep(NAP)
                native(compiled.leader().address)(request.buffer_info()[0])
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted:
            raise interrupted

    def _serve(self, mailbox: int, function: int) -> None:
        request = array("q", [mailbox, function, PATIENCE])
        native(compiled.helper().address)(request.buffer_info()[0])


def _forget_team() -> None:
    """A forked child inherits the team but none of its threads."""
    global _team
    _team = None


os.register_at_fork(after_in_child=_forget_team)
