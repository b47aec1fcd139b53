"""Compile a kernel on its first use, keep it on disk, and call it by its address.

A kernel is a function of one int: the address of its arguments, a row of int64 (addresses and
sizes). So all kernels have one type, a list of calls is a table of numbers, and
`tasks` runs such a table without Python in between. Kernels release the GIL, keep IEEE
order of operations (no fast-math, no contraction) and allocate nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

HERE = Path(__file__).parent
ENOUGH = 2  # LLVM's level of optimisation: tiles are vectors already, and level 3 compiles 1.4 times as long
_lock = threading.RLock()
_warned = False


@cache
def sources() -> str:
    """A digest of all that kernels are made of. Numba's cache sees a change in the kernel's own file only."""
    files = [*sorted((HERE / "compiled").glob("*.py")), HERE / "formula.py", HERE / "rules.py"]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


class Kernel:
    """A function of the address of its arguments, compiled when its own address is first asked for."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self.function = function
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Where the machine code starts."""
        if self._compiled is None:
            with _lock:
                if self._compiled is None:
                    self._compiled = _compile(self.function)
        return int(self._compiled.address)


def kernel(function: Callable[[int], None]) -> Kernel:
    """Make a kernel of a function whose first line is `a, b, ... = arguments(p, count, version)`.

    What it closes over becomes part of its name, so that it has an index of its own in the cache: Numba gives one to
    all functions of a name, and where two processes add to it at once, one's kernel may be filed as the other's.
    """
    code = function.__code__
    inlines = any(isinstance(constant, CodeType) for constant in code.co_consts)
    assert not (inlines and "carray" in code.co_names), "Numba drops a carray's writes where it inlines a function"
    names, cells = code.co_freevars, function.__closure__ or ()
    closed = {name: cell.cell_contents for name, cell in zip(names, cells, strict=True) if name != "version"}
    function.__qualname__ += "_" + hashlib.sha256(repr(closed).encode()).hexdigest()[:16]
    return Kernel(function)


class Lazily:
    """A module that is imported when something of it is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, found)  # so that it is asked for once
        return found


def _compile(function: Callable[[int], None]) -> Any:
    """Compiled, from the cache where it is there and whole."""
    import numba

    options: dict[str, Any] = {"nopython": True, "error_model": "numpy"}
    config: Any = numba.config
    before = config.OPT, config.CACHE_DIR
    config.OPT, config.CACHE_DIR = min(config.OPT, type(config.OPT)(ENOUGH)), config.CACHE_DIR or _cache_of_user()
    try:
        return numba.cfunc("void(int64)", cache=True, **options)(function)
    except Exception as error:  # anything at all may be wrong with a file in the cache, or with the disk under it
        _warn(error)
        return numba.cfunc("void(int64)", **options)(function)
    finally:
        config.OPT, config.CACHE_DIR = before


def _cache_of_user() -> str:
    """The folder for compiled kernels of an installed package; else "": beside their source, where Numba puts them.

    pip leaves behind what it did not install, and an empty folder `minitl` would hide a package installed otherwise.
    """
    if not HERE.is_relative_to(sysconfig.get_path("purelib")):
        return ""
    from numba.misc import appdirs

    found: Callable[..., str] = appdirs.user_cache_dir
    folder = found("minitl", appauthor=False)
    return folder if os.path.isabs(folder) else ""


def _warn(error: Exception) -> None:
    """Say once that the cache is of no use."""
    global _warned
    if _warned or "no locator" in str(error):
        return
    _warned = True
    folder = os.environ.get("NUMBA_CACHE_DIR") or _cache_of_user() or str(HERE / "compiled" / "__pycache__")
    print(
        f"minitl: compiling without a cache ({type(error).__name__}: {error}); emptying {folder} may mend it",
        file=sys.stderr,
    )


def _renew_lock() -> None:
    """A forked child may have inherited the lock while another thread held it."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def interpreted() -> bool:
    """Whether Numba is told not to compile (NUMBA_DISABLE_JIT=1): then the plain loops run instead of the kernels."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
