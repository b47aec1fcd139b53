import os
import time

import pytest

from minitl.errors import UnknownNameError, UsageError, unknown
from minitl.kernels import threads
from minitl.training.workers import Workers


def square(x, tick):
    for _ in range(x):
        tick(0.5)
    return x * x


def threads_and_process(tick):
    return threads._threads, os.getpid()


def fail(tick):
    raise unknown("digit", 11, range(10))


def vanish(tick):
    os._exit(1)


def sleep(tick):
    tick(1.0)
    time.sleep(60)


ticks = []


@pytest.fixture(scope="module")
def two():
    with Workers(2, ticks.append) as workers:
        yield workers


def test_jobs_come_back_whatever_their_order_and_every_tick_arrives(two):
    ticks.clear()
    for x in range(6):
        two.submit(square, x)
    assert sorted(two.outcomes()) == [0, 1, 4, 9, 16, 25]
    assert ticks == [0.5] * 15
    assert list(two.outcomes()) == []


def test_an_outcome_can_lead_to_another_job(two):
    seen = []
    two.submit(square, 2)
    for outcome in two.outcomes():
        seen.append(outcome)
        if outcome < 100:
            two.submit(square, outcome)
    assert seen == [4, 16, 256]


def test_workers_are_other_processes_with_one_thread_each(two):
    two.submit(threads_and_process)
    [(count, process)] = two.outcomes()
    assert count == 1
    assert process in [worker.pid for worker in two.processes]


def test_the_error_of_a_job_is_raised_here(two):
    two.submit(fail)
    with pytest.raises(UnknownNameError, match="unknown digit 11; choose one of: 0, 1"):
        list(two.outcomes())


def test_a_worker_that_vanishes_is_noticed():
    with Workers(1, lambda loss: None) as workers:
        workers.submit(vanish)
        with pytest.raises(UsageError, match="ended unexpectedly"):
            list(workers.outcomes())


def interrupt(loss):
    raise KeyboardInterrupt


def test_leaving_ends_the_processes_at_once():
    start = time.monotonic()
    with Workers(1, interrupt) as workers:
        workers.submit(sleep)
        with pytest.raises(KeyboardInterrupt):
            list(workers.outcomes())
    assert time.monotonic() - start < 30
    assert not any(process.is_alive() for process in workers.processes)
