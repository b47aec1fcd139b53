"""Keras' files, read in a process of its own.

On a damaged file the HDF5 library may never come back, or end the process it is in. So a process is started that is
told paths, a JSON text in each line, and answers each with eight bytes of length and an `.npz` archive: the arrays, and
as `about` a JSON text of the rest, or of what is wrong with the file.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from threading import Event, Timer
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from minitl.errors import DataError, MinitlError
from minitl.networks.weights.keras_file import KerasFile, KerasLayer, read_keras

PATIENCE = 60.0  # seconds for a file; the largest network's takes less than one
LENGTH = 8  # bytes
ROOT = str(Path(__file__).parents[3])
SERVE = f"import sys; sys.path.insert(0, {ROOT!r}); from {__name__} import serve; serve()"


def read_apart(path: Path) -> KerasFile:
    """What `read_keras` gives or raises; a DataError also where the library does not survive the file."""
    with Reader() as reader:
        return reader.read(path)


class Reader:
    """The process that reads. It lives until it is left, or a file was too much for it (`alive`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def alive(self) -> bool:
        """Whether it can read another file."""
        return self._process.poll() is None

    def read(self, path: Path) -> KerasFile:
        """One file's layers; raises DataError."""
        ask, answer = self._process.stdin, self._process.stdout
        assert ask is not None
        assert answer is not None
        late = Event()
        timer = Timer(PATIENCE, self._give_up, [late])
        timer.start()
        try:
            ask.write(json.dumps(str(path)).encode() + b"\n")
            ask.flush()
            length = int.from_bytes(answer.read(LENGTH), "little")
            content = answer.read(length)
        except BrokenPipeError:
            content = b""
        finally:
            timer.cancel()
        if not content or len(content) < length:
            self._process.wait()
            what = f"does not come to an end of it in {PATIENCE:g} s" if late.is_set() else "breaks down on it"
            raise DataError(f"{path}: cannot be read as weights: the HDF5 library {what}", remedy="save it anew")
        return _unpacked(content)

    def _give_up(self, late: Event) -> None:
        late.set()
        self._process.kill()


def serve() -> None:
    """Answer until there is nothing more to read."""
    for line in sys.stdin.buffer:
        _answer(json.loads(line), sys.stdout.buffer)


def _answer(path: str, stream: BinaryIO) -> None:
    about: dict[str, Any]
    try:
        file = read_keras(Path(path))
        about = {"layers": [(layer.name, list(layer.arrays)) for layer in file.layers], "norms": sorted(file.norms)}
        arrays = [array for layer in file.layers for array in layer.arrays.values()]
    except MinitlError as error:
        about, arrays = {"error": str(error)}, []
    packed = io.BytesIO()
    np.savez(packed, *arrays, about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    stream.write(len(packed.getvalue()).to_bytes(LENGTH, "little"))
    stream.write(packed.getvalue())
    stream.flush()


def _unpacked(content: bytes) -> KerasFile:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        about = json.loads(archive["about"].tobytes())
        if "error" in about:
            raise DataError(about["error"])
        numbers = iter(range(len(archive.files) - 1))
        layers = [
            KerasLayer(name, {variable: archive[f"arr_{next(numbers)}"] for variable in variables})
            for name, variables in about["layers"]
        ]
    return KerasFile(layers, {(eps, momentum) for eps, momentum in about["norms"]})
