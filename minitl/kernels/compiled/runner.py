"""The kernel that runs a table of kernel calls: the loop around all others."""

from __future__ import annotations

from functools import cache

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, call, load8, load64, store64, take


@cache
def runner(width: int) -> Kernel:
    """Runs tasks until none is left. A row of the table is the kernel's address and `width` - 1 arguments.

    Its own arguments: addresses of the rows, of the number of the array that each argument
    points into, of each task's first row; how many tasks; addresses of the arrays' addresses, of
    room for a call's arguments, of the counter that all threads take tasks from.
    """
    version = sources()

    @kernel
    def run(p: int) -> None:
        rows, arrays, starts, count, bases, room, counter = arguments(p, 7, version)
        while True:
            task = take(counter)
            if task >= count:
                break
            for row in range(load64(starts + 8 * task), load64(starts + 8 * task + 8)):
                for i in range(1, width):
                    base = load64(bases + 8 * load8(arrays + row * width + i))
                    store64(room + 8 * (i - 1), load64(rows + 8 * (row * width + i)) + base)
                call(load64(rows + 8 * row * width), room)

    return run
