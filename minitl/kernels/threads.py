"""Run a kernel over chunks of its work on several threads, with the same bytes on any number of them.

The partition into chunks is a function of the problem's shape alone, and every chunk writes
memory of its own; partial sums are reduced in the order of the chunks. So the number of
threads changes only when a chunk runs, never what it computes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from minitl.arrays import is_count
from minitl.errors import ValueRangeError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MAX_CHUNKS = 8
WORTH_A_CHUNK = 1 << 20  # multiply-adds or elements; below it, handing work over costs more than it gains

_threads = os.cpu_count() or 1
_pool: ThreadPoolExecutor | None = None
_here = threading.local()  # `working` where a span is at work: it must not wait for other threads


def set_threads(count: int) -> None:
    """Use `count` threads for the kernels from now on (the default is the number of cores)."""
    global _threads, _pool
    if not is_count(count, least=1):
        raise ValueRangeError(op="set_threads", expected="a count of at least 1", got=str(count))
    _threads, _pool = count, None


def count() -> int:
    """How many threads are in use."""
    return _threads


def chunks(count: int, work: int, align: int = 1, least: int = 1) -> list[tuple[int, int]]:
    """Split `range(count)`, which costs `work` in all, into at most MAX_CHUNKS spans.

    Every span but the last is a multiple of `align` long (8 where bits of eight neighbours
    share a byte). More than two spans only where they are at least about `least` long.
    """
    pieces = max(1, min(MAX_CHUNKS, work // WORTH_A_CHUNK, max(2, count // least)))
    step = max(align, -(-count // (pieces * align)) * align)
    return [(start, min(start + step, count)) for start in range(0, count, step)] or [(0, 0)]


def run(task: Callable[[int, int], object], spans: list[tuple[int, int]]) -> None:
    """Call `task(start, stop)` for every span; return when all are done. A task may call `run` in its turn.

    The caller takes spans too: with two threads only one has to be woken.
    """
    if len(spans) == 1 or _threads == 1 or at_work():
        for start, stop in spans:
            task(start, stop)
        return
    left = deque(spans)

    def take() -> None:
        _here.working = True
        while left:
            try:
                start, stop = left.popleft()
            except IndexError:  # somebody else was quicker
                return
            task(start, stop)

    held = [take]  # let go of below: a worker forgets its work a moment after the result is out
    futures = [_executor().submit(lambda: held[0]()) for _ in range(min(_threads, len(spans)) - 1)]
    try:
        take()
    finally:
        _here.working = False
        left.clear()
        started = [future for future in futures if not future.cancel()]
        errors = [future.exception() for future in started]  # waits for them
        held.clear()
    for error in errors:
        if error:
            raise error


def at_work() -> bool:
    """Whether this thread is at work on a span."""
    return getattr(_here, "working", False)


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        from concurrent.futures import ThreadPoolExecutor  # takes a while to import

        _pool = ThreadPoolExecutor(_threads - 1, "minitl")
    return _pool


def _forget_pool() -> None:
    """A forked child inherits the pool but none of its threads."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)
