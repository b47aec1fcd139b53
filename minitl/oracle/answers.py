"""Read what an implementation computed: safetensors, .npz, .npy or raw .bin files, or the log of a C program.

The reader trusts nothing it reads: sizes are checked before anything is allocated.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minitl.arrays import Array, nbytes
from minitl.oracle.case import Case
from minitl.oracle.store import LARGEST, TENSORS, CaseError, read_bytes, read_safetensors

Answer = dict[str, Array]
RAW = {2: "<f2", 4: "<f4", 8: "<f8"}  # a raw file's dtype, by the bytes an element takes
LOG = re.compile(r"@answer (\S+) (\S+) (f32|u8) (\d+)$")  # case, tensor, format, number of elements
LOGGED = {"f32": ("<f4", 8), "u8": ("u1", 2)}  # dtype, and hexadecimal digits of an element


def reader(got: Path) -> Callable[[Case, str], Answer | None]:
    """How to get the answer to a case, given its folder's name, out of `got`.

    That is a folder with a folder or file per case, the folder or file of a single case, or a log.
    """
    if got.suffix in WHOLE and got.is_file():
        names = (".", got.stem, got.resolve().parent.name)
        return lambda case, name: WHOLE[got.suffix](got) if name in names else None
    if got.is_file():
        log = read_log(got)
        return lambda case, name: log[case.name](case) if case.name in log else None
    if not got.is_dir():
        raise CaseError(f"{got}: no such folder or file")
    return lambda case, name: _of_case(got, case, name)


def _of_case(got: Path, case: Case, name: str) -> Answer | None:
    """From the case's folder, which `got` itself may be, or from a file of its name."""
    for suffix, read in WHOLE.items():
        if (path := got / f"{name}{suffix}").is_file():
            return read(path)
    return read_folder(got if got.resolve().name == name and not (got / name).exists() else got / name, case)


def nothing_found(got: Path, names: Sequence[str]) -> CaseError:
    """Why `got` holds no answer to any of the cases."""
    of = f"any of {len(names)} cases" if len(names) > 1 else names[0]
    what = f"{got}: holds no answer to {of}"
    as_it_should = f"write {names[0]}/answer.npz, or {names[0]}/output.npy and so on"
    if got.is_file():
        return CaseError(what, remedy=f"the file must be named {names[0]}.npz, or lie in a folder {names[0]}")
    inside = sorted(path.name for path in got.iterdir())
    for name in names:
        if name in inside:
            files = sorted(path.name for path in (got / name).iterdir()) if (got / name).is_dir() else []
            found = f"found {', '.join(files[:4])}" if files else "found nothing"
            return CaseError(f"{what}: {name} has no {TENSORS}, .npz, .npy or .bin file; {found}", remedy=as_it_should)
    if not inside:
        return CaseError(f"{what}: it is empty", remedy=as_it_should)
    near = next(((i, close[0]) for i in inside if (close := get_close_matches(Path(i).stem, names, 1))), None)
    found = f"found {near[0]!r}, did you mean {near[1]!r}?" if near else f"found {', '.join(inside[:4])}"
    return CaseError(f"{what}: no folder is named as a case; {found}", remedy="" if near else as_it_should)


def read_folder(folder: Path, case: Case) -> Answer | None:
    """The answer that a folder holds; None if there is no such folder, or nothing in it."""
    if not folder.is_dir():
        return None
    if (folder / TENSORS).exists():
        return read_safetensors(folder / TENSORS)
    archives = sorted(folder.glob("*.npz"))
    if len(archives) > 1:
        raise CaseError(f"{folder}: expected {TENSORS}, one .npz file or .bin files, found {len(archives)} .npz files")
    if archives:
        return read_npz(archives[0])
    raw, whole = (
        {path.name.removesuffix(suffix): path for path in sorted(folder.glob(f"*{suffix}"))}
        for suffix in (".bin", ".npy")
    )
    if not raw and not whole:
        return None
    if both := sorted(raw.keys() & whole.keys()):
        raise CaseError(f"{folder}: {both[0]} is there twice, as .bin and as .npy")
    flat = {name: _raw(path, case.tensors.get(name)) for name, path in raw.items()}
    return shaped(case, flat) | {name: read_npy(path) for name, path in whole.items()}


def _raw(path: Path, expected: Array | None) -> Array:
    """The elements of a raw little-endian file; their size tells float16, float32 and float64 apart."""
    data = read_bytes(path, LARGEST)
    if expected is not None and expected.dtype.kind != "f":
        dtype = expected.dtype.newbyteorder("<") if len(data) % expected.itemsize == 0 else np.dtype("u1")
    else:
        each = len(data) // expected.size if expected is not None and len(data) % expected.size == 0 else 4
        dtype = np.dtype(RAW.get(each, "<f4"))
    if len(data) % dtype.itemsize:
        raise CaseError(f"{path}: {len(data)} bytes are no whole number of {dtype.name} elements")
    return np.frombuffer(data, dtype).copy()


def shaped(case: Case, flat: Mapping[str, Array]) -> Answer:
    """Flat arrays in the shapes of the case's tensors, where they have as many elements."""
    shapes = {name: case.tensors[name].shape for name in flat if name in case.tensors}
    return {n: a.reshape(shapes[n]) if n in shapes and a.size == np.prod(shapes[n]) else a for n, a in flat.items()}


def read_log(path: Path) -> dict[str, Callable[[Case], Answer]]:
    """How to get each case's answer out of what `check.c` printed, compiled with MINITL_ANSWERS.

    Other lines are passed over. What is said of one case and cannot be read is raised for that case alone.

    `@answer CASE TENSOR f32 COUNT` is followed by lines `@ 3f800000 ...` of the bits of each
    element; `u8` has two digits per byte.
    """
    found: dict[str, dict[str, Callable[[], Array]]] = {}
    digits: list[str] = []
    heading: tuple[str, ...] = ()
    for line in [*read_bytes(path, LARGEST).decode("utf-8", "replace").splitlines(), "@answer"]:
        _, at, text = line.partition("@")
        if text.startswith(" ") and heading:
            digits += text.split()
        elif text.startswith("answer"):
            if heading:
                found.setdefault(heading[0], {})[heading[1]] = partial(_logged, path, heading, digits)
            match = LOG.match(at + text.rstrip())
            heading, digits = match.groups() if match else (), []
    if not found:
        remedy = "answers are .npz or .safetensors files, or what check.c prints, compiled with -DMINITL_ANSWERS"
        raise CaseError(f"{path}: holds no answers", remedy=remedy)
    return {name: partial(_read_logged, tensors) for name, tensors in found.items()}


def _read_logged(tensors: Mapping[str, Callable[[], Array]], case: Case) -> Answer:
    return shaped(case, {name: read() for name, read in tensors.items()})


def _logged(path: Path, heading: tuple[str, ...], digits: list[str]) -> Array:
    case, tensor, form, count = heading
    dtype, width = LOGGED[form]
    if len(digits) != int(count) or any(len(d) != width for d in digits):
        raise CaseError(f"{path}: {tensor} of {case} is cut short: {len(digits)} of {count} elements")
    try:
        return np.frombuffer(bytes.fromhex("".join(digits)), np.dtype(dtype).newbyteorder(">")).astype(dtype)
    except ValueError:
        raise CaseError(f"{path}: {tensor} of {case} is not hexadecimal") from None


def read_npz(path: Path) -> Answer:
    """All arrays of an .npz file."""
    if path.stat().st_size > LARGEST:
        raise CaseError(f"{path}: larger than {LARGEST} bytes")
    arrays, total = {}, 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                total += member.file_size
                if total > LARGEST:
                    raise CaseError(f"{path}: more than {LARGEST} bytes of arrays")
                with archive.open(member) as stream:
                    _check_header(stream, member.file_size)
                with archive.open(member) as stream:
                    arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
    except CaseError:
        raise
    except Exception as error:  # a damaged archive raises nearly anything
        raise CaseError(f"{path}: not a sound .npz file: {str(error)[:120]}") from None
    return arrays


def read_npy(path: Path) -> Array:
    """The array of an .npy file."""
    data = read_bytes(path, LARGEST)
    try:
        _check_header(io.BytesIO(data), len(data))
        return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
    except Exception as error:  # as above
        raise CaseError(f"{path}: not a sound .npy file: {str(error)[:120]}") from None


def _check_header(stream: Any, available: int) -> None:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject or any(n < 0 for n in shape) or nbytes(tuple(shape), dtype) > available:
        raise CaseError(f"an array of shape {str(shape)[:60]} and {dtype}, which the file does not hold")


WHOLE: dict[str, Callable[[Path], Answer]] = {
    ".npz": read_npz,
    ".safetensors": read_safetensors,
}  # files of a whole answer
