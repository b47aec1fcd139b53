"""Files: read only where they are plain files of a sensible size, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from minitl.errors import DataError, UsageError

LARGEST, LARGEST_TEXT = 1 << 30, 1 << 20  # bytes


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Read a plain file of at most `largest` bytes.

    Raises UsageError for a pipe, a device or a folder (a reader would wait for ever, or never come to an end), and
    where the file is missing, cannot be read or is larger.
    """
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # a pipe opens at once
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise UsageError(f"{path}: not a plain file")
            if about.st_size > largest:
                raise UsageError(f"{path}: {about.st_size:,} bytes", remedy=f"at most {largest:,} are read")
            return file.read(largest)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: cannot read: {reason(error)}") from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """What a TOML file of at most a MiB holds; raises DataError where it is not `what`."""
    try:
        return tomllib.loads(read_bytes(path, LARGEST_TEXT).decode())
    except UsageError as error:
        raise DataError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no {what}: {error}") from None


@contextmanager
def replacing(path: Path, part: Path | None = None) -> Iterator[Path]:
    """Give a place beside `path` to write to; it takes `path`'s place once all is written, and is gone otherwise.

    `part` is that place, by default one that nobody has. Raises UsageError where the operating system refuses.
    """
    part = part or _beside(path)
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot write: {reason(error)}") from None
    finally:
        with suppress(OSError, ValueError):  # replaced, or never there
            part.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, whatever ends the process or the room on the disk.

    What a killed process leaves is in a place that follows from `path`, where the next one writes over it. Raises
    UsageError where the operating system refuses.
    """
    left = path.parent / f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}.part"
    with replacing(path, left) as part, open(part, "wb") as file:  # closed before it takes the other's place
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # or a crash of the machine could leave it empty


def check_writable(path: Path) -> None:
    """Raise UsageError where `path` could not be written, without touching what is there."""
    part = _beside(path)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(path).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        part.touch()
        part.unlink()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot write: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What the operating system says, without its number and the path; of a null byte every Python says it alike."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "embedded null byte" if isinstance(error, ValueError) else str(error)


def _beside(path: Path) -> Path:
    """A name nobody has, as short as any: one made from the path's own could be too long."""
    return path.parent / f".{uuid4().hex[:12]}.part"
