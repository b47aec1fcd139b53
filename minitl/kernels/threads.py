"""Threads for the kernels: call machine code on several of them at once.

Which thread does a task changes only when it is done, never what it computes (see `tasks`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from minitl.arrays import is_count
from minitl.errors import ValueRangeError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_threads = os.cpu_count() or 1
_pool: ThreadPoolExecutor | None = None


def set_threads(count: int) -> None:
    """Use `count` threads for the kernels from now on (the default is the number of cores)."""
    global _threads, _pool
    if not is_count(count, least=1):
        raise ValueRangeError(op="set_threads", expected="a count of at least 1", got=str(count))
    _threads, _pool = count, None


def count() -> int:
    """How many threads are in use."""
    return _threads


def call(function: int, arguments: Sequence[int]) -> None:
    """Call the kernel at that address once for each argument, each on a thread of its own; return when all are done."""
    native = _native(function)
    first, *others = arguments
    futures = [_executor().submit(native, other) for other in others]
    native(first)
    for future in futures:
        if not future.cancel():
            future.result()


@cache
def _native(function: int) -> Callable[[int], None]:
    """The machine code as a Python function, which releases the GIL."""
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(function)


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
