"""A log of a training run: one row per epoch, as CSV or JSON, written anew and whole after each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minitl.errors import UsageError
from minitl.files import check_writable, write_whole

SUFFIXES = (".csv", ".json")


def check_log(path: Path) -> None:
    """Raise UsageError where no log can be written at `path`."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"unknown file type {path.suffix!r}", layer=str(path), remedy=f"use {' or '.join(SUFFIXES)}")
    check_writable(path)


def write_log(path: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows; those of an interrupted run and of its continuation are one list."""
    if path.suffix == ".json":
        text = json.dumps(list(epochs), indent=1) + "\n"
    else:
        stream = io.StringIO()
        table = csv.DictWriter(stream, list(epochs[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(epochs)
        text = stream.getvalue()
    write_whole(path, text.encode())
