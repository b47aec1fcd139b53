"""Jobs spread over a Dask cluster, whose workers have minitl and see the same files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from importlib import import_module
from typing import Any, TypeVar

from minitl.errors import UsageError
from minitl.kernels import threads

T = TypeVar("T")

TIMEOUT = 20  # seconds to wait for the scheduler


def spread_over(scheduler: str, function: Callable[..., T], jobs: Iterable[tuple[Any, ...]]) -> Generator[T]:
    """Give `function(*job)` for every job, in the order they are done, on one thread each.

    `scheduler` is its address, like tcp://host:8786. Leaving the iterator early cancels the jobs
    that are left. Raises whatever a job raises, and UsageError where dask.distributed is missing or
    the scheduler does not answer.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise UsageError("a cluster needs dask.distributed", remedy="pip install 'minitl[dask]'") from None
    try:
        client = distributed.Client(scheduler, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:120]
        raise UsageError(f"the scheduler {scheduler} does not answer: {told}", op="compare") from None
    with client:
        futures = [client.submit(_work, function, job, pure=False) for job in jobs]
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                yield future.result()
        finally:
            client.cancel(futures)


def _work(function: Callable[..., T], job: tuple[Any, ...]) -> T:
    """On a worker of the cluster."""
    threads.set_threads(1)
    return function(*job)
