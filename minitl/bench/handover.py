"""How long a cache line takes from one thread to the other: what is paid where both work on the same map.

It depends on where the system lets them run: some 40 ns where their processors share a cache, four times as long where
they do not, and steps of many small maps then gain much less from a second thread.
"""

from __future__ import annotations

from array import array
from threading import Thread

from minitl.bench.timing import once
from minitl.kernels import threads
from minitl.kernels.compile import Lazily
from minitl.kernels.tasks import aligned

compiled = Lazily("minitl.kernels.compiled.handover")

TIMES, ROUNDS = 2000, 20
PATIENCE = 10**6  # looks, before a thread that does not run is given up


def handover_ns() -> float | None:
    """Nanoseconds, the least of some rounds; None where two threads never ran at the same time."""
    rounds = [_round() for _ in range(ROUNDS)]
    return min((found for found in rounds if found), default=None)


def _round() -> float | None:
    """Of one handover, in nanoseconds; None where a player gave up."""
    memory = array("q", bytes(3 * 8 * threads.LINE))
    start = memory.buffer_info()[0]
    ball = aligned(start)  # alone in its cache line
    players = [array("q", [ball, who, TIMES, PATIENCE]) for who in (0, 1)]
    own, other = (player.buffer_info()[0] for player in players)
    play = threads.native(compiled.pass_on().address)
    helper = Thread(target=play, args=(other,))
    helper.start()
    seconds = once(lambda: play(own))
    helper.join()
    return seconds / (2 * TIMES) * 1e9 if memory[(ball - start) // 8] == 2 * TIMES else None
