"""What the actions of `minitl oracle` have in common: the choice of cases, and how they are told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Timer
from typing import Any

from minitl import oracle
from minitl.oracle.recipes import BLOCKS
from minitl.oracle.store import CaseError

SLOW = 2.0  # seconds
AT_WORK = "at work; kernels are compiled once, which takes some seconds"


def entries(args: argparse.Namespace) -> list[oracle.Entry]:
    """Built-in cases by pattern, op and method."""
    found = [
        entry
        for entry in oracle.entries(args.pattern or "*")
        if args.op in (None, entry.op) and args.method in (None, method_of(entry))
    ]
    if not found:
        raise CaseError("no built-in case matches PATTERN, --op and --method together", remedy="see minitl oracle list")
    return found


def method_of(entry: oracle.Entry) -> str:
    """The method of a case that has one."""
    return entry.method if entry.op in BLOCKS else ""


def attrs_text(attrs: Mapping[str, Any]) -> str:
    """As on the command line."""
    return " ".join(f"{name}={str(value).lower() if value != '' else '(the first)'}" for name, value in attrs.items())


@contextmanager
def told_if_slow(args: argparse.Namespace) -> Iterator[None]:
    """A line on stderr for who waits, at a terminal or behind a pipe; programs, which ask for JSON, need none."""
    timer = Timer(SLOW, print, (AT_WORK,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    if not args.json:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
