"""Compile a loop with Numba on its first call, not on import.

Importing Numba takes a quarter of a second and compiling a kernel about as long again; a
person who only asks for shapes and bytes should pay for neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from threading import Lock
from typing import Any

_lock = Lock()


def jit(function: Callable[..., None]) -> Callable[..., None]:
    """`numba.njit(nogil=True, cache=True)`, applied when the kernel is first called.

    Kernels are serial (threads take whole chunks, see `threads`), release the GIL, keep IEEE
    order of operations (no fast-math, no fused multiply-add), and allocate nothing.
    Where Numba finds no directory it may cache in, the kernel is compiled without a cache.
    """
    return _lazily(function, contract=False)


def jit_contract(function: Callable[..., None]) -> Callable[..., None]:
    """As `jit`, but a product and a sum may be rounded as one, where the processor can.

    Faster, and the same bytes run after run on one machine, but not on any machine: nothing for a
    path that is `portable`.
    """
    return _lazily(function, contract=True)


def _lazily(function: Callable[..., None], *, contract: bool) -> Callable[..., None]:
    compiled: Callable[..., None] | None = None

    @functools.wraps(function)
    def call(*arguments: Any) -> None:
        nonlocal compiled
        if compiled is None:
            with _lock:
                compiled = _compile(function, contract)
        compiled(*arguments)

    return call


def _compile(function: Callable[..., None], contract: bool) -> Callable[..., None]:
    import numba

    fastmath = {"contract"} if contract else False
    try:
        return numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return numba.njit(nogil=True, fastmath=fastmath)(function)
