"""Workers need no guard, know the main script's methods, and end when the process does that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import run_script

from minitl.errors import UsageError
from minitl.kernels import threads
from minitl.training.workers import default_workers, spread

WORKERS = pytest.mark.parametrize("workers", [1, 2])
SESSIONS = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

NO_GUARD = """
import sys
from dataclasses import replace
from minitl import methods
from minitl.training.adapt import Task
from minitl.training.choice import Choice
from minitl.training.compare import compare

last = methods.METHODS["ft-last"]
methods.METHODS["mine"] = replace(last, name="mine", policy=lambda layer, blocks: last.policy(layer, blocks))
tiny = Task(source=(0, 1), target=(2, 3), size=8, source_epochs=1, images=12, epochs=1, batch=6)
mine, last = compare([Choice("mine"), Choice("ft-last")], seeds=1, task=tiny, workers=int(sys.argv[1]))
print(mine.accuracy == last.accuracy)
"""


@WORKERS
def test_a_script_needs_no_guard_and_may_register_a_method(workers: int) -> None:
    same = run_script(NO_GUARD, workers).strip()
    assert same == "True"


@WORKERS
def test_all_jobs_are_done(workers: int) -> None:
    pytest.importorskip("joblib")
    before = threads.count()
    assert sorted(spread(pow, [(n, 2) for n in range(5)], workers)) == [0, 1, 4, 9, 16]
    assert threads.count() == before


@WORKERS
def test_an_error_is_that_of_the_job(workers: int) -> None:
    pytest.importorskip("joblib")
    with pytest.raises(ZeroDivisionError):
        list(spread(divmod, [(1, 1), (1, 0)], workers))


def test_one_worker_is_this_process() -> None:
    assert list(spread(os.getpid, [(), ()], 1)) == [os.getpid()] * 2


def test_a_worker_that_is_killed_is_an_error_with_a_remedy() -> None:
    pytest.importorskip("joblib")
    with pytest.raises(UsageError, match="a worker process was killed; with too little memory take fewer workers"):
        list(spread(signal.raise_signal, [(signal.SIGKILL,)], 2))


def test_jobs_may_be_given_up_as_soon_as_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """loky's own thread would find its queue of jobs and its table of them apart, and write so."""
    pytest.importorskip("joblib")
    written: list[object] = []
    monkeypatch.setattr(threading, "excepthook", written.append)

    def jobs() -> Iterator[tuple[int]]:
        yield from [(0,)] * 3
        raise InterruptedError

    for _ in range(20):
        with pytest.raises(InterruptedError):
            list(spread(time.sleep, jobs(), 4))
    assert not written


def test_without_joblib_there_is_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("joblib", "joblib.externals.loky"):
        monkeypatch.setitem(sys.modules, name, None)
    assert default_workers() == 1
    assert list(spread(pow, [(3, 2)], 1)) == [9]
    with pytest.raises(UsageError, match="2 workers need joblib; pip install"):
        list(spread(pow, [(3, 2)], 2))


ENDLESS = """
import sys, time
from functools import partial
from minitl import cli
from minitl.training.adapt import Task
from minitl.verbs import compare

sys.modules["psutil"] = None  # loky does without it where it is not installed, and less well
compare.Task = partial(Task, source=(0, 1), target=(2, 3), size=8, source_epochs=10**6, images=12, epochs=1, batch=6)
sys.argv[1:] = ["compare", "--seeds", "2", "--workers", "2", "--methods", "ft-last"]
sys.exit(cli.main())
"""


def session(leader: int) -> list[int]:
    """The processes of a session, and no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:  # has just ended
            continue
        if int(own) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


@SESSIONS
@pytest.mark.parametrize(
    ("number", "to_all", "when"),
    [
        (signal.SIGTERM, False, "at work"),
        (signal.SIGKILL, False, "at work"),
        (signal.SIGINT, False, "at work"),
        (signal.SIGTERM, True, "as workers begin"),
        (signal.SIGINT, True, "as workers begin"),
        (signal.SIGINT, True, "at work"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_no_worker_outlives_a_comparison_that_is_killed(
    number: signal.Signals, to_all: bool, when: str, tmp_path: Path
) -> None:
    """Not even in the midst of its work, or where a second signal comes while the first one's work is done."""
    pytest.importorskip("joblib")
    with open(tmp_path / "err", "w") as err:
        running = subprocess.Popen(
            [sys.executable, "-c", ENDLESS], stderr=err, start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    try:
        ticks = tmp_path / "nothing"
        deadline = time.monotonic() + 100
        # until both workers are at work, or one twice; or there are two, and two that look after them
        while not (ticks.exists() and ticks.stat().st_size > 2 if when == "at work" else len(session(running.pid)) > 4):
            assert time.monotonic() < deadline
            assert running.poll() is None
            ticks = next(tmp_path.glob("minitl-*/steps"), ticks)
            time.sleep(0.05)
        assert len(session(running.pid)) >= 3
        if to_all:
            os.killpg(running.pid, number)
            time.sleep(0.002)
            os.killpg(running.pid, number)
        else:
            running.send_signal(number)
        code = running.wait(timeout=60)
        while session(running.pid):
            assert time.monotonic() < deadline + 60
            time.sleep(0.05)
    finally:
        for process in session(running.pid):
            os.kill(process, signal.SIGKILL)
    assert code == {signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[number]
    if number != signal.SIGKILL:
        assert not list(tmp_path.glob("minitl-*"))
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        assert (tmp_path / "err").read_text().splitlines()[1:] == [f"minitl compare: {word}"]
