"""What the kernels are compiled for: the width of a vector, and how large a tile the registers hold.

Read off Numba's own target, which `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` may set, and not off the
processor. The shape of a tile changes how fast a kernel is, never a bit of what it computes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from minitl.arrays import itemsize
from minitl.errors import ValueRangeError


class Target(NamedTuple):
    """Bytes of a vector; positions (`rows`) and vectors of channels (`vecs`) of the tile of a product.

    The tile of a weight's gradient has `outer_rows` channels, of which there are usually multiples of 8.
    """

    vector_bytes: int
    rows: int
    vecs: int

    @property
    def outer_rows(self) -> int:
        """Channels of one map in the tile of a weight's gradient, beside `vecs` vectors of the other."""
        return self.rows + self.rows % 2

    def lanes(self, itemsize: int) -> int:
        """Numbers in a vector."""
        return self.vector_bytes // itemsize


@cache
def target() -> Target:
    """The target in force; `MINITL_TILE=BYTES,ROWS,VECS` overrides it, for tests."""
    if text := os.environ.get("MINITL_TILE"):
        return _parse(text)
    features = _features()
    if "+avx512f" in features:
        return Target(64, 7, 3)  # 21 of 32 registers are sums; 7 divides the usual maps
    if "+avx2" in features and "+fma" in features:
        return Target(32, 4, 3)
    if "+neon" in features or "+fp-armv8" in features:
        return Target(16, 7, 3)
    return Target(16, 4, 2)


def lanes(dtype: str) -> int:
    """Numbers in a vector."""
    return target().lanes(itemsize(dtype))


def masked(channels: int, dtype: str) -> bool:
    """Whether the last vector of that many channels is not whole."""
    return channels % lanes(dtype) != 0


def _features() -> list[str]:
    from numba.core import codegen, config

    forced: Any = getattr(config, "CPU_FEATURES", None)
    host: Callable[[], str] = codegen.get_host_cpu_features
    return (host() if forced is None else str(forced)).split(",")


def _parse(text: str) -> Target:
    try:
        found = Target(*map(int, text.split(",")))
    except (TypeError, ValueError):
        found = Target(0, 0, 0)
    if found.vector_bytes not in (16, 32, 64) or found.rows < 1 or found.vecs < 1:
        raise ValueRangeError(op="kernels", expected="MINITL_TILE=BYTES,ROWS,VECS as in 32,4,3", got=text)
    return found
