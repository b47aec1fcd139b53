"""Jobs spread over processes, which end when the one that started them does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from minitl.checks import expect_count
from minitl.errors import UsageError
from minitl.kernels import threads
from minitl.kernels.heap import keep_freed_memory

T = TypeVar("T")

MOST = 256  # processes

# of whatever library a job may use; the kernels' own are set in `_prepare`
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

REMEDY = "pip install 'minitl[demo]', or take one worker"


def count(workers: int | None) -> int:
    """So many, by default one for each core. Raises ValueRangeError beyond MOST."""
    return default_workers() if workers is None else expect_count("workers", workers, most=MOST, op="compare")


def default_workers() -> int:
    """One for each core that this process may use; one where joblib is missing."""
    try:
        import joblib
    except ImportError:
        return 1
    return int(joblib.cpu_count())


def spread(function: Callable[..., T], jobs: Iterable[tuple[Any, ...]], workers: int) -> Generator[T]:
    """Give `function(*job)` for every job, in the order they are done, on one thread each.

    One worker is this process itself. More are processes that loky starts, which comes with joblib; functions of the
    main script and of notebooks work there too, and need no `if __name__ == "__main__":`. Leaving the iterator early
    ends them. Raises whatever a job raises, and UsageError where joblib is missing or a worker is killed.
    """
    if workers == 1:
        yield from _here(function, jobs)
        return
    try:
        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.backend import resource_tracker as of_loky
    except ImportError:
        raise UsageError(f"{workers} workers need joblib", remedy=REMEDY) from None
    of_loky.ensure_running()  # as in `deaf`
    pool = ProcessPoolExecutor(workers, initializer=_prepare, initargs=(os.getpid(),), env=ONE_THREAD)
    left, running = iter(jobs), set[Future[T]]()
    try:
        while True:
            with deaf():
                for job in islice(left, workers - len(running)):
                    running.add(pool.submit(function, *job))
            if not running:
                return
            done = set[Future[T]]()
            while not done:  # never for long: a signal that comes just before is heard only after it
                done, running = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool:
        raise UsageError("a worker process was killed", remedy="with too little memory take fewer workers") from None
    finally:
        for _ in range(1000):  # a second at most: loky ends badly with jobs that it has not yet taken from its queue
            if all(future.running() or future.done() for future in running):
                break
            time.sleep(0.001)
        pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes and threads started within it never hear of Ctrl-C and SIGTERM, which are this process's business.

    A terminal and `timeout` send them to the whole group. A worker that one of them ended as it began would write where
    it was; and loky ends its workers with the help of `pgrep`, and waits for ever for them if that is ended itself.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # or it starts within, and then lets the signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _here(function: Callable[..., T], jobs: Iterable[tuple[Any, ...]]) -> Generator[T]:
    before = threads.count()
    threads.set_threads(1)
    try:
        yield from (function(*job) for job in jobs)
    finally:
        threads.set_threads(before)


def _prepare(parent: int) -> None:
    """A worker: one thread, freed memory kept; the parent's end is its own."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    keep_freed_memory()
    threads.set_threads(1)


def _end_with(parent: int) -> None:
    """End this process once its parent has gone, by whatever signal: then another process is its parent."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
