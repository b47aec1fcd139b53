"""Progress on stderr: a bar where there is a terminal and tqdm to draw it, plain lines anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Tick = Callable[[float], object]  # called with the loss after each step


class Bar:
    """Counts steps and shows the latest loss; call it with the loss after each step."""

    def __init__(self, drawn: Any) -> None:
        self.drawn = drawn  # tqdm's, or None to draw nothing

    def __call__(self, loss: float) -> None:
        """One step is done."""
        if self.drawn is not None:
            self.drawn.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self.drawn.update()

    def line(self, text: str) -> None:
        """Write a line, above the bar where there is one."""
        if self.drawn is not None:
            self.drawn.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


class Silent(Bar):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(None)

    def line(self, text: str) -> None:
        """Write nothing."""


@contextmanager
def bar(description: str, steps: int) -> Iterator[Bar]:
    """A bar of that many steps, drawn only on a terminal and only where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield Bar(None)
        return
    with tqdm(total=steps, desc=description, unit="step", file=sys.stderr, disable=None, smoothing=0.02) as drawn:
        yield Bar(drawn)


@contextmanager
def following(progress: str | Tick | None, steps: int) -> Iterator[Tick]:
    """What to call after each step: `progress` itself, or a bar of that description, or nothing."""
    if progress is None:
        yield Silent()
    elif callable(progress):
        yield progress
    else:
        with bar(progress, steps) as drawn:
            yield drawn
