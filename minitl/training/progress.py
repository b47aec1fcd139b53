"""Progress on stderr: a bar where there is a terminal and rich to draw it, plain lines anywhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EVERY = 0.25  # seconds between two looks at what other processes have done


class Bar:
    """Counts what is done: steps, which a bar draws, and jobs of many steps, each with a line of its own."""

    def __init__(self, jobs: int, drawn: Any = None, task: Any = None) -> None:
        self.drawn, self.task = drawn, task  # rich's, or None where there is none
        self.done, self.jobs = 0, jobs
        self.ended = threading.Event()
        self.follower: threading.Thread | None = None

    def step(self, loss: float | None = None) -> None:
        """One training step is done, or what else is counted."""
        if self.drawn:
            self.drawn.update(self.task, advance=1, note="" if loss is None else f"loss {loss:.3f}")

    def say(self, text: str) -> None:
        """Write a line, above the bar where there is one."""
        if self.drawn:
            self.drawn.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def advance(self, text: str) -> None:
        """One job is done: write a line about it, above the bar where there is one."""
        self.done += 1
        self.say(f"[{self.done}/{self.jobs}] {text}")
        if self.drawn and not self.follower:
            self.drawn.update(self.task, advance=1)

    def follow(self, count: Callable[[], int]) -> None:
        """From now on draw `count()` steps, which are done elsewhere, until it raises OSError."""
        if self.drawn:
            self.follower = threading.Thread(target=self._follow, args=(count,), daemon=True)
            self.follower.start()

    def _follow(self, count: Callable[[], int]) -> None:
        while not self.ended.wait(EVERY):
            try:
                self.drawn.update(self.task, completed=count())
            except OSError:  # what is counted is no longer there
                return


class Silent(Bar):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(0)

    def say(self, text: str) -> None:
        """Say nothing."""


@contextmanager
def bar(description: str, total: int, jobs: int | None = None) -> Iterator[Bar]:
    """A bar of `total` steps, drawn only on a terminal and only where rich is installed.

    `jobs` is how many times `advance` will be called, if not once a step.
    """
    jobs = total if jobs is None else jobs
    drawn = _progress() if sys.stderr.isatty() else None
    if drawn is None:
        yield Bar(jobs)
        return
    with drawn:
        shown = Bar(jobs, drawn, drawn.add_task(description, total=total, note=""))
        try:
            yield shown
        finally:
            shown.ended.set()


def _progress() -> Any:
    """Rich's bar, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left
    except ImportError:
        return None
    told = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    times = (TimeElapsedColumn(), TextColumn("left"), Left())
    return Progress(*told, *times, console=Console(file=sys.stderr), refresh_per_second=4, transient=True)
