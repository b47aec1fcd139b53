"""Whether memory that was freed goes back to the system, or is at hand for the next step.

A training step frees what it kept; the next one takes as much again. Where the C library hands
large blocks back in between, the system must find and zero every page anew, which can take a
third of a step. Results are the same either way; only the process stays as large as its peak.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
NEVER = 2**31 - 1  # bytes


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory, in this process and for good; False where it is not glibc.

    It is the program's choice, not a library's: minitl calls it only in processes of its own.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, musl say
        return False
    return bool(mallopt(TRIM_THRESHOLD, NEVER) and mallopt(MMAP_THRESHOLD, NEVER // 2))
