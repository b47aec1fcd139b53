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


@pytest.fixture(autouse=True)
def never_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether kernels compile for seconds depends on the machine; what is written on stderr shall not."""
    monkeypatch.setattr("minitl.verbs.oracle_cases.SLOW", 3600.0)
