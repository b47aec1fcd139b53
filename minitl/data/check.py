"""Whether files are images that can be read: all of those that are not are named at once, before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from minitl.data.files import inside
from minitl.data.image import NO_IMAGE, check_image
from minitl.errors import DataError, brief

SHOWN = 10  # of the files that cannot be read
AT_ONCE = 1000  # files that threads are given


def expect_images(files: Sequence[str], root: Path | None = None, tell: Callable[[], None] = lambda: None) -> None:
    """Raise DataError naming the first of `files` that cannot be read, and how many there are.

    They are paths within `root`, which no link may leave, where it is given. `tell` is called after each file.
    """

    def fault(file: str) -> DataError | None:
        try:
            check_image(inside(root, root / file) if root else Path(file))
        except DataError as error:
            return error
        return None

    faults: list[tuple[str, DataError]] = []
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for group in (files[start : start + AT_ONCE] for start in range(0, len(files), AT_ONCE)):
            for file, error in zip(group, pool.map(fault, group), strict=True):
                faults += [(file, error)] if error else []
                tell()
    finally:  # Ctrl-C does not wait for files that nobody has looked into yet
        pool.shutdown(wait=False, cancel_futures=True)
    if len(faults) == 1:
        raise faults[0][1]
    if faults:
        told = ", ".join(f"{file} ({brief(error.problem.removeprefix(NO_IMAGE))})" for file, error in faults[:SHOWN])
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(
            f"{len(faults)} of {len(files)} images cannot be read: {told}{more}",
            layer=str(root or ""), remedy="remove them, or save them anew",
        )  # fmt: skip
