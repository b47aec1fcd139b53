"""Hold BLAS to one thread while minitl computes, and put it back afterwards.

With one thread against two, OpenBLAS gives other bits for about a quarter of the weight
gradients; and its threads beside ours cost 2 to 5 times the time. The limit is one for the
whole process in most builds of BLAS, so overlapping contexts are counted: the first one in
notes what there was, the last one out restores it. In others (MKL, OpenBLAS on OpenMP) it is
one a thread, so every thread that multiplies enters a context of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

_lock = Lock()
_holders = 0
_before: list[int] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this context BLAS runs on one thread; contexts may nest and overlap."""
    global _holders, _before
    with _lock:
        if _holders == 0:
            _before = [library.num_threads for library in _libraries()]
        _holders += 1
        _limit([1] * len(_before))
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limit(_before)


def worker() -> AbstractContextManager[None]:
    """What a thread enters that works for another, which is within `one_thread`.

    Nothing, where the limit is the process's: to ask for it again and again takes time.
    """
    return one_thread() if _limits_each_thread() else nullcontext()


@cache
def _limits_each_thread() -> bool:
    """Whether some BLAS may have a limit for each thread; OpenBLAS on its own threads has not."""
    return any((b.internal_api, b.threading_layer) != ("openblas", "pthreads") for b in _libraries())


@cache
def _libraries() -> tuple[Any, ...]:
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


def _limit(counts: Sequence[int]) -> None:
    """Set every library's number of threads.

    threadpoolctl 3.8 obeys only the thread that set a limit first, and silently ignores all
    others, until that thread gives up control; older versions obey any.
    """
    for library, count in zip(_libraries(), counts, strict=True):
        if library.num_threads != count:
            give_up = getattr(library, "clear_controlling_thread", lambda force: None)
            give_up(force=True)
            library.set_num_threads(count)
            give_up(force=True)
