"""Progress on stderr: a bar where there is a terminal and tqdm to draw it, plain lines anywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """Counts what is done."""

    def __init__(self, drawn: Any, total: int) -> None:
        self.drawn = drawn  # tqdm's, or None where there is no tqdm
        self.done, self.total = 0, total

    def step(self, loss: float) -> None:
        """One training step is done."""
        if self.drawn is not None:
            self.drawn.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self.drawn.update()

    def say(self, text: str) -> None:
        """Write a line, above the bar where there is one."""
        if self.drawn is not None:
            self.drawn.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def advance(self, text: str) -> None:
        """One job is done: write a line about it, above the bar where there is one."""
        self.done += 1
        self.say(f"[{self.done}/{self.total}] {text}")
        if self.drawn is not None:
            self.drawn.update()


class Silent(Bar):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(None, 0)

    def say(self, text: str) -> None:
        """Say nothing."""


@contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """A bar of that many steps or jobs, drawn only on a terminal and only where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield Bar(None, total)
        return
    with tqdm(total=total, desc=description, file=sys.stderr, disable=None, smoothing=0.02) as drawn:
        yield Bar(drawn, total)
