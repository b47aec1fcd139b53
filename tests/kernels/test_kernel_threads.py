"""Threads: how many there are, and that the work is done on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minitl.errors import MinitlError
from minitl.kernels import channels, threads


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
