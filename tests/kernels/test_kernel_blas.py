"""BLAS runs on one thread within the context, and on as many as before after the last one is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from threadpoolctl import ThreadpoolController

from minitl.kernels import blas


def blas_threads() -> set[int]:
    """Thread counts of the BLAS libraries that minitl knows."""
    return {library.num_threads for library in blas._libraries()}


@pytest.fixture(autouse=True)
def on_two_threads() -> Iterator[None]:
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        assert blas_threads() == {2}
        yield
        assert blas_threads() == {2}


def test_one_thread_within_and_restored_after() -> None:
    with blas.one_thread():
        assert blas_threads() == {1}
        with blas.one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}


def test_restored_after_an_error() -> None:
    with pytest.raises(KeyError), blas.one_thread(), blas.one_thread():
        raise KeyError
    assert blas_threads() == {2}


def test_contexts_of_two_threads_overlap() -> None:
    """The other thread enters second and leaves last: the limit holds until then."""
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with blas.one_thread():
            inside.set()
            leave.wait(timeout=60)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        assert inside.wait(timeout=60)
    assert blas_threads() == {1}
    leave.set()
    thread.join(timeout=60)
    assert blas_threads() == {2}


def test_any_thread_may_hold_while_another_has_set_a_limit() -> None:
    """threadpoolctl gives the main thread control here (see the fixture), and would ignore the other one."""
    seen: list[set[int]] = []

    def other() -> None:
        with blas.one_thread():
            seen.append(blas_threads())
        seen.append(blas_threads())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(timeout=60)
    assert seen == [{1}, {2}]


def test_a_context_can_be_entered_again_afterwards() -> None:
    for _ in range(3):
        with blas.one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {2}
