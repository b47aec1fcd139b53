"""Hold BLAS to one thread while minitl computes, and put it back afterwards.

With one thread against two, OpenBLAS gives other bits for about a quarter of the weight
gradients; and its threads beside ours cost 2 to 5 times the time. `threadpoolctl` limits are
process-global, so overlapping contexts are counted: the first one in sets the limit, the last
one out restores what was there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

_lock = Lock()
_holders = 0
_limit: Any = None


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this context BLAS runs on one thread; contexts may nest and overlap."""
    global _holders, _limit
    with _lock:
        if _holders == 0:
            _limit = _controller().limit(limits=1, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limit.restore_original_limits()
