"""The kernel that hands a cache line from thread to thread, to see how long that takes (see `bench.handover`)."""

from __future__ import annotations

from functools import cache

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, store64, swap, watch


@cache
def pass_on() -> Kernel:
    """Counts on, `times` times, whenever the number in `ball` is even (`who` is 0), or odd (1).

    After `patience` looks in vain it makes the number -1 and gives up.
    """
    version = sources()

    @kernel
    def play(p: int) -> None:
        ball, who, times, patience = arguments(p, 4, version)
        for turn in range(who, 2 * times, 2):
            looks = 0
            while watch(ball) != turn and looks < patience:
                looks += 1
            if not swap(ball, turn, turn + 1):
                store64(ball, -1)
                break

    return play
