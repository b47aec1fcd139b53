"""How a command ends: every error as an exit code and one line, and output that may have nowhere to go."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from minitl.errors import MinitlError, UsageError
from minitl.files import reason

INTERNAL = 70  # EX_SOFTWARE of sysexits.h
GRACE = 10  # seconds in which a process must have ended, once it was told to
ALARM = (signal.SIGALRM,) if hasattr(signal, "SIGALRM") else ()  # none on Windows


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends whatever Ctrl-C ends, and in the same way."""


INTERRUPTS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and what is said about it."""
    if isinstance(error, BrokenPipeError) and _reader_gone():  # `head`, say, has seen enough
        return 0, ""
    if isinstance(error, MinitlError):
        return 2, str(error)
    if isinstance(error, MemoryError):
        return 2, f"not enough memory: {str(error) or 'use a smaller batch'}"
    if isinstance(error, OSError):
        return 2, f"{error.filename}: {reason(error)}" if error.filename else reason(error)
    if isinstance(error, KeyboardInterrupt):
        code, told = (143, "terminated") if isinstance(error, Terminated) else (130, "interrupted")
        return code, f"{told}: {error}" if str(error) else told
    return INTERNAL, f"internal error: {type(error).__name__}: {error}; --traceback shows where"


def print_traceback(error: BaseException) -> None:
    """Where the error comes from, on stderr."""
    traceback.print_exception(error)


@contextmanager
def signals_as_interrupts(*, to_the_end: bool) -> Iterator[None]:
    """Within it the first SIGINT raises KeyboardInterrupt, or the first SIGTERM Terminated; what comes then is ignored.

    So workers are ended and files left whole even if a second signal follows at once, as `timeout` and impatient people
    send it. Should that take longer than GRACE, the process ends where it is. `to_the_end` is for a process that ends
    soon after: it goes on ignoring signals until then.
    """
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in (*INTERRUPTS, *ALARM)}
    ignored = before[signal.SIGINT] == signal.SIG_IGN  # as by a shell's background jobs
    for number in (signal.SIGTERM,) if ignored else INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        if not (to_the_end and signal.getsignal(signal.SIGTERM) == signal.SIG_IGN):
            if ALARM:
                signal.alarm(0)
            for number, handler in before.items():
                signal.signal(number, handler)


def prepare_streams() -> None:
    """Make stdout and stderr take any text, in any encoding; raises UsageError where stdout is closed."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        raise UsageError("standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def let_go_of_stdout() -> None:
    """Throw away what stdout cannot take: Python would try again as it exits, and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    def leave(*_: object) -> NoReturn:
        os._exit(explain(error)[0])

    error = INTERRUPTS[signal.Signals(number)]()
    for each in INTERRUPTS:
        signal.signal(each, lambda *_: None)
    for each in INTERRUPTS:
        signal.raise_signal(each)  # heard together with one that came as the first did, of which Python would complain
        signal.signal(each, signal.SIG_IGN)
    for each in ALARM:
        signal.signal(each, leave)
        signal.alarm(GRACE)
    raise error


def _reader_gone() -> bool:
    """Whether it is stdout that is the broken pipe, and not one to a process of ours."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return bool(poll.poll(0))
    except OSError:  # no file at all
        return False
