"""Threads: how many there are, and that the work is done on them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, get_ident
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minitl.errors import MinitlError
from minitl.kernels import channels, threads
from minitl.kernels.tasks import Recorder, recorded

CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int64)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    threads.set_threads(2)
    yield
    threads.set_threads(os.cpu_count() or 1)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True, 2**31])
def test_no_threads_are_refused(count: object) -> None:
    with pytest.raises(MinitlError, match=r"set_threads: expected a count from 1 to 1024"):
        threads.set_threads(count)


def test_many_callers_at_once_get_what_one_gets() -> None:
    x = np.random.default_rng(0).standard_normal((16, 14, 14, 33)).astype(np.float32)
    alone = channels.sums(x)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: channels.sums(x), range(200)))
    assert all(np.array_equal(alone, result) for result in results)


@pytest.mark.parametrize(("waits", "patience"), [(True, 0.2), (False, 9)])
def test_only_a_task_that_waits_is_begun_when_all_before_are_done(waits: bool, patience: float) -> None:
    begun, together = Event(), list[bool]()
    first = CALLBACK(lambda _: together.append(begun.wait(patience)))
    second = CALLBACK(lambda _: begun.set())

    def record(to: Recorder) -> None:
        for function, later in ((first, False), (second, waits)):
            if later:
                to.barrier()
            to.task()
            kernel: Any = SimpleNamespace(address=ctypes.cast(function, ctypes.c_void_p).value)
            to.call(kernel)

    recorded(record).table().run()
    assert begun.is_set()
    assert together == [not waits]


def test_a_thread_takes_its_own_share_of_the_tasks_between_two_barriers_first() -> None:
    """So that a sample stays with one thread: tasks 0 and 1 with one, 2 and 3 with the other, before and after."""
    begun, met, by = [Event() for _ in range(8)], list[bool](), dict[int, int]()

    def work(task: int) -> Callable[[int], None]:
        def run(_: int) -> None:
            by[task] = get_ident()
            begun[task].set()
            met.append(begun[task ^ 2].wait(9))  # 0 and 2 are begun together, then 1 and 3

        return run

    functions = [CALLBACK(work(task)) for task in range(8)]

    def record(to: Recorder) -> None:
        for task, function in enumerate(functions):
            if task == 4:
                to.barrier()
            to.task()
            kernel: Any = SimpleNamespace(address=ctypes.cast(function, ctypes.c_void_p).value)
            to.call(kernel)

    recorded(record).table().run()
    assert all(met)
    assert [by[task] == by[0] for task in range(8)] == [True, True, False, False] * 2


@pytest.mark.parametrize("moment", ["before its own job", "while it waits"])
def test_ctrl_c_waits_for_helpers(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their arguments, and the arrays they write to, are let go of as soon as a call is left."""
    own, other, nothing = 2, 4, 6  # stand for addresses of arguments
    begun, told, done = Event(), Event(), list[int]()
    native, naps, calls, caller = threads.native, list[float](), list[int](), get_ident()

    def work(job: int) -> None:
        if job == other:
            begun.set()
            told.wait(9)
        elif job == own:
            begun.wait(9)
        done.append(job)

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if moment == "while it waits" and len(naps) < 3:
            raise KeyboardInterrupt
        told.set()

    def interrupted(function: int) -> Callable[[int], None]:
        if get_ident() != caller:  # a helper's, which had to be woken; it never hears of Ctrl-C
            return native(function)
        calls.append(function)
        if len(calls) == 2 and moment == "before its own job":
            begun.wait(9)
            raise KeyboardInterrupt
        return native(function)

    team, function = threads.Team(1), CALLBACK(work)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    team.call(address, nothing, [nothing])  # compiles
    with monkeypatch.context() as patch:
        patch.setattr(threads, "time", SimpleNamespace(sleep=sleep))
        patch.setattr(threads, "native", interrupted)
        patch.setattr(threads, "_team", team)
        with pytest.raises(KeyboardInterrupt):
            team.call(address, own, [other])
        assert other in done
        # one whose helper may never have been woken is not used again
        assert threads._team is (team if moment == "while it waits" else None)
