"""The outcomes of a comparison's trials in a file, so that an interruption loses none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minitl.errors import DataError, UsageError, brief
from minitl.files import check_writable, read_bytes, write_whole
from minitl.training.search import Outcome

SCHEMA = "minitl-trials/1"


class Store:
    """The outcomes so far, in memory and, where a path is given, in that file.

    `about` is what decides the outcomes: with `resume`, those in the file are taken up where it was
    the same. Raises UsageError where it was not, or there is no path; DataError where the file is another.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path, self.about = path, about
        self.outcomes: list[Outcome] = []
        if resume and not path:
            raise UsageError("--resume needs --out", remedy="say which file the trials are in")
        if path:
            check_writable(path)
            if resume and path.exists():
                self.outcomes = self._read(path)

    def add(self, outcome: Outcome) -> None:
        """Keep one more."""
        self.outcomes.append(outcome)
        if self.path:
            stored = {"schema": SCHEMA, "about": self.about, "trials": [o.to_json() for o in self.outcomes]}
            write_whole(self.path, (json.dumps(stored, indent=1, sort_keys=True) + "\n").encode())

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within it an interruption says what is in the file, where there is one."""
        try:
            yield
        except KeyboardInterrupt as error:
            if not self.path:
                raise
            done = f"{len(self.outcomes)} trials are in {self.path}: the same command with --resume goes on"
            raise type(error)(done if self.outcomes else "nothing was written yet") from error

    def _read(self, path: Path) -> list[Outcome]:
        try:
            stored = json.loads(read_bytes(path))
            if stored["schema"] != SCHEMA:
                raise ValueError("another schema")
            about, outcomes = stored["about"], [Outcome.from_json(trial) for trial in stored["trials"]]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"holds no trials of a comparison: {told}", layer=str(path)) from None
        for name, asked in json.loads(json.dumps(self.about)).items():
            if about.get(name) != asked:
                told = f"was begun with other {name}{_within(about.get(name), asked)}"
                raise UsageError(told, layer=str(path), remedy="give another --out")
        return outcomes


def _within(begun: Any, asked: Any) -> str:
    """What differs, of a group of options."""
    if not (isinstance(begun, dict) and isinstance(asked, dict)):
        return ""
    names = [name for name in {**begun, **asked} if begun.get(name) != asked.get(name)]
    told = [f"{name} {begun.get(name, 'by default')}, not {asked.get(name, 'by default')}" for name in names]
    return f" ({brief('; '.join(told))})"
