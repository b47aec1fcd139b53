"""Cases are small: one thread is done with them before two have begun."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minitl.kernels import threads


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = threads.count()
    threads.set_threads(1)
    yield
    threads.set_threads(before)
