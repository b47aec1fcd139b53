"""Chunks of work: how it is split, who runs it, and that nothing is held afterwards."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import MinitlError
from minitl.kernels import threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    threads.set_threads(2)
    yield
    threads.set_threads(os.cpu_count() or 1)


@given(count=st.integers(0, 500), work=st.integers(0, 1 << 24), align=st.sampled_from([1, 2, 4, 8]))
def test_chunks_cover_everything_once_in_order(count: int, work: int, align: int) -> None:
    spans = threads.chunks(count, work, align)
    assert spans[0][0] == 0
    assert spans[-1][1] == count
    assert all(a[1] == b[0] and a[1] % align == 0 for a, b in pairwise(spans))
    assert len({stop - start for start, stop in spans[:-1]}) <= 1
    assert len(spans) <= max(1, min(threads.MAX_CHUNKS, work // threads.WORTH_A_CHUNK))


def test_chunks_do_not_depend_on_the_number_of_threads() -> None:
    one, two = [], []
    for count, into in ((1, one), (2, two)):
        threads.set_threads(count)
        into += [threads.chunks(n, n * w) for n in (1, 7, 64) for w in (1, 1 << 16, 1 << 20)]
    assert one == two
    assert max(map(len, one)) == threads.MAX_CHUNKS


def test_no_work_is_held_once_run_is_over() -> None:
    """What a task refers to is freed with the last reference the caller holds, on a worker as well."""
    for _ in range(200):
        array = np.zeros(10)
        gone = weakref.ref(array)
        threads.run(lambda a, b, x=array: x[a:b].sum(), [(0, 5), (5, 10)])
        del array
        assert gone() is None


def test_a_task_may_run_tasks() -> None:
    done: list[int] = []
    threads.run(lambda a, _: threads.run(lambda b, _: done.append(a + b), [(i, i) for i in range(4)]), [(0, 0), (4, 4)])
    assert sorted(done) == list(range(8))


def test_an_error_in_a_task_reaches_the_caller() -> None:
    def fail(start: int, stop: int) -> None:
        raise ZeroDivisionError(f"{start} to {stop}")

    with pytest.raises(ZeroDivisionError, match=r"[01] to [12]"):
        threads.run(fail, [(0, 1), (1, 2)])


def test_no_threads_are_refused() -> None:
    with pytest.raises(MinitlError, match=r"set_threads: expected a count of at least 1, got 0"):
        threads.set_threads(0)
