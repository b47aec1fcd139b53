"""Worker processes that compute on one thread each, for many small and independent runs.

The steps of a small network are too short to be shared among threads; whole runs are not. The
number of workers changes when a run is done, never what it computes.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from minitl.errors import MinitlError, UsageError
from minitl.training.progress import Tick


class Workers:
    """`count` processes; submit jobs, then take `outcomes()` as they come. Use it in a `with` statement.

    Leaving it ends the processes, whatever they are doing. They are started afresh ("spawn"),
    which imports the main script: there, call under `if __name__ == "__main__":`.
    """

    def __init__(self, count: int, tick: Tick) -> None:
        self.count, self.tick = count, tick
        self.waiting: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self.idle: list[Connection] = []
        self.busy: list[Connection] = []

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self.processes = []
        for _ in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()  # else a worker that died would not be noticed
            self.processes.append(process)
            self.idle.append(ours)
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have `function(*arguments, tick)` called; it must be importable, and its arguments picklable."""
        self.waiting.append((function, arguments))

    def outcomes(self) -> Iterator[Any]:
        """What the jobs return, in the order they finish, until none is left. More may be submitted meanwhile.

        Each `tick` in a worker is one here. Raises the MinitlError a job raised, and UsageError
        if a worker ended by itself.
        """
        while self.waiting or self.busy:
            while self.waiting and self.idle:
                self.busy.append(self.idle.pop())
                self.busy[-1].send(self.waiting.popleft())
            ready = wait(self.busy)
            for pipe in [pipe for pipe in self.busy if pipe in ready]:
                try:
                    kind, content = pipe.recv()
                except (EOFError, ConnectionError):
                    raise UsageError(
                        "a worker process ended unexpectedly",
                        remedy="in a script, call this under `if __name__ == '__main__':`",
                    ) from None
                if kind == "tick":
                    self.tick(content)
                    continue
                self.busy.remove(pipe)
                self.idle.append(pipe)
                if isinstance(content, MinitlError):
                    raise content
                yield content


def _work(pipe: Connection) -> None:
    """What a worker does: jobs from the pipe, one after the other, until it is ended."""
    from minitl.kernels import threads

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # on Ctrl-C it is the parent that speaks
    threads.set_threads(1)
    while True:
        function, arguments = pipe.recv()
        try:
            outcome = function(*arguments, lambda loss: pipe.send(("tick", loss)))
        except MinitlError as error:
            outcome = error
        pipe.send(("outcome", outcome))
