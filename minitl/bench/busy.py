"""How busy the machine is with other work, which spoils a comparison."""

from __future__ import annotations

import time
from pathlib import Path

STAT = Path("/proc/stat")
WATCHED = 0.5  # seconds
TOO_BUSY = 0.1


def others() -> float | None:
    """The share of all cores' time that went to something else while this process slept; None if unknown."""
    try:
        idle, total = _ticks()
        time.sleep(WATCHED)
        idle, total = (after - before for after, before in zip(_ticks(), (idle, total), strict=True))
    except (OSError, ValueError):
        return None
    return 1 - idle / total if total else None


def warning(shares: list[float]) -> str:
    """A line to print below figures that were taken while that much was busy, or nothing."""
    most = max(shares, default=0.0)
    if most < TOO_BUSY:
        return ""
    return (
        f"\n\nNot to be trusted: other work took up to {100 * most:.0f} % of the cores, which slows down PyTorch more "
        "than minitl, for its\nthreads wait for one another in every operation. Run this on an idle machine."
    )


def _ticks() -> tuple[int, int]:
    """Idle ticks (waiting for disks included) and all ticks since the system started."""
    numbers = [int(word) for word in _read().split("\n", 1)[0].split()[1:9]]
    return sum(numbers[3:5]), sum(numbers)


def _read() -> str:
    return STAT.read_text()
