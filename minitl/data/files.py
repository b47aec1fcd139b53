"""Opening files of data with care: regular files only, none outside the folder given, no more bytes than they say."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, BinaryIO

from minitl.errors import DataError
from minitl.files import reason

CHUNK = 1 << 16


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading; raises DataError. (A pipe would wait for ever.)"""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            os.close(descriptor)
            raise DataError(f"is {'a folder' if stat.S_ISDIR(kind) else 'not a regular file'}", layer=str(path))
        return open(descriptor, "rb")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot be read: {reason(error)}", layer=str(path)) from None


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def inside(root: Path, path: Path) -> Path:
    """`path`, or DataError where it is a link that leads out of `root`."""
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise DataError("is a link that leads nowhere", layer=str(path)) from None
    if not resolved.is_relative_to(root.resolve()):
        raise DataError(
            "is a link that leads out of the folder", layer=str(path), remedy="give the folder it leads to, or copy it"
        )
    return path


def spool(stream: IO[bytes], size: int, where: str) -> BinaryIO:
    """The `size` bytes of a decompressing stream, in an unnamed temporary file that can be read anywhere.

    A compressed file cannot be read from its middle, and its contents may not fit in memory.
    What the file says about its size is not trusted: at most `size` bytes are written, and none
    where the disk has no room for twice that. Raises DataError.
    """
    if 2 * size > shutil.disk_usage(tempfile.gettempdir()).free:
        raise DataError(f"says to hold {size:,} bytes, for which {tempfile.gettempdir()} has no room", layer=where)
    file = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as its reader)
    left = size
    try:
        while left and (chunk := stream.read(min(CHUNK, left))):
            file.write(chunk)
            left -= len(chunk)
        file.flush()
    except Exception as error:  # a broken stream raises whatever its decompressor does
        file.close()
        raise DataError(f"cannot be decompressed: {error}", layer=where) from None
    if left:
        file.close()
        raise DataError(f"ends {left:,} bytes early", layer=where)
    return file
