"""A log of a training run: one row per epoch, as CSV or JSON, written anew and whole after each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minitl.files import write_whole


def write_log(path: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows, by the path's ending; those of an interrupted run and of its continuation are one list."""
    if path.suffix.lower() == ".json":
        text = json.dumps(list(epochs), indent=1) + "\n"
    else:
        stream = io.StringIO()
        table = csv.DictWriter(stream, list(epochs[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(epochs)
        text = stream.getvalue()
    write_whole(path, text.encode())
