"""Handing a cache line over: two threads take turns, and neither waits for one that does not come."""

from __future__ import annotations

from array import array
from concurrent.futures import ThreadPoolExecutor

import pytest

from minitl.bench import handover
from minitl.kernels import threads


def played(ball: array[int], who: int, times: int, patience: int) -> int:
    """The ball's number after one thread's turns."""
    given = array("q", [ball.buffer_info()[0], who, times, patience])
    threads.native(handover.compiled.pass_on().address)(given.buffer_info()[0])
    return ball[0]


@pytest.mark.parametrize(("who", "times", "after"), [(0, 1, 1), (0, 2, -1), (1, 1, -1)])
def test_a_thread_gives_up_where_the_other_does_not_come(who: int, times: int, after: int) -> None:
    assert played(array("q", [0]), who, times, 1000) == after


def test_two_threads_take_turns() -> None:
    ball = array("q", [0])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda who: played(ball, who, 3, 10**10), (0, 1)))  # however busy the machine is
    assert ball[0] == 6


@pytest.mark.parametrize(("rounds", "found"), [([None, 50.0, 40.0], 40.0), ([None], None)])
def test_the_least_of_the_rounds_that_were_played_to_the_end(
    rounds: list[float | None], found: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(rounds)
    monkeypatch.setattr(handover, "ROUNDS", len(rounds))
    monkeypatch.setattr(handover, "_round", lambda: next(left))
    assert handover.handover_ns() == found
