"""The kernel that reads memory for no other reason than to have it in the cache (see `kernels.fetch`)."""

from __future__ import annotations

from functools import cache

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, watch

LINE = 64  # bytes


@cache
def fetch() -> Kernel:
    """Reads a number of every cache line of `count` bytes; `watch`, for the compiler leaves out what nothing uses."""
    version = sources()

    @kernel
    def run(p: int) -> None:
        address, count = arguments(p, 2, version)
        for at in range(-(-address // LINE) * LINE, address + count - 7, LINE):
            watch(at)

    return run
