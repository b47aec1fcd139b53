"""Cases as folders: `case.json` and `tensors.safetensors`. The reader trusts nothing it reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitl import files
from minitl.arrays import Array
from minitl.bits import packed_shape
from minitl.errors import MinitlError, UsageError
from minitl.oracle import updates
from minitl.oracle.bounds import PRECISIONS
from minitl.oracle.case import BY_SAMPLE, SCHEMA, Case, shape_from
from minitl.oracle.forms import WEIGHTS

JSON, TENSORS = "case.json", "tensors.safetensors"
LARGEST = 1 << 30  # bytes of a file, or of its tensors
LARGEST_JSON = 1 << 24
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DTYPES = ("float32", "float64", "uint8", "int8", "uint16", "int64")
FIELDS: dict[str, type] = {
    **dict.fromkeys(("case", "op", "method", "rule", "layout", "dtype"), str),
    **dict.fromkeys(("attrs", "macs", "flops", "conventions", "generator", "tensors"), dict),
    "approximate_gradient": bool,
    "kept": list,
}
ROW = {"layer": str, "tensor": str, "rule": str, "bits": int, "shape": list}


class CaseError(MinitlError):
    """A folder or file of a case that is missing or cannot be read."""


def save(case: Case, folder: Path | str) -> None:
    """Write the case into `folder`, which is made if need be; raises CaseError or UsageError where it cannot be."""
    import safetensors.numpy

    if not NAME.fullmatch(case.name):
        raise CaseError(f"{case.name!r} cannot be the name of a case", remedy="use letters, digits, . _ and -")
    folder = Path(folder)
    arrays = {name: np.array(tensor, order="C") for name, tensor in case.tensors.items()}
    about: dict[str, Any] = {"schema": SCHEMA, "case": case.name}
    about |= {name: getattr(case, name) for name in FIELDS if name not in ("case", "tensors")}
    about["tensors"] = {
        name: {"shape": list(a.shape), "dtype": a.dtype.name, "sha256": hashlib.sha256(a.tobytes()).hexdigest()}
        for name, a in arrays.items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CaseError(f"{folder}: cannot write: {error.strerror or error}") from None
    files.write_whole(folder / TENSORS, safetensors.numpy.save(arrays))
    files.write_whole(folder / JSON, _json_text(about).encode())


def _json_text(about: Mapping[str, Any]) -> str:
    """JSON with one line a field, and one line a tensor and a row of `kept`."""

    def text(value: Any) -> str:
        if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            return "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n }"
        if isinstance(value, list) and value:
            return "[\n" + ",\n".join(f"  {json.dumps(v)}" for v in value) + "\n ]"
        return json.dumps(value)

    return "{\n" + ",\n".join(f" {json.dumps(k)}: {text(v)}" for k, v in about.items()) + "\n}\n"


def load(folder: Path | str) -> Case:
    """Read a case; raises CaseError unless every tensor is what `case.json` says, to the byte."""
    folder = Path(folder)
    about = _read_json(folder / JSON)
    tensors = read_safetensors(folder / TENSORS)
    _check_tensors(folder, about["tensors"], tensors)
    fields = {name: about[name] for name in FIELDS if name not in ("case", "tensors")}
    case = Case(name=about["case"], tensors=tensors, **fields)
    _check_rows(folder, case)
    return case


def _read_json(path: Path) -> dict[str, Any]:
    data = read_bytes(path, LARGEST_JSON)
    try:
        about = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CaseError(f"{path}: not JSON: {str(error)[:80]}") from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        got = about.get("schema") if isinstance(about, dict) else type(about).__name__
        raise CaseError(f"{path}: expected schema {SCHEMA!r}, got {str(got)[:40]!r}")
    for name, kind in FIELDS.items():
        if type(about.get(name)) is not kind:
            raise CaseError(f"{path}: {name} must be a {kind.__name__}")
    if not NAME.fullmatch(about["case"]) or about["layout"] not in ("nhwc", "nchw"):
        raise CaseError(f"{path}: bad name {about['case'][:40]!r} or layout {about['layout'][:40]!r}")
    if (weights := about["conventions"].get("weights", "oihw")) not in [*WEIGHTS]:
        raise CaseError(f"{path}: unknown order of weights {str(weights)[:40]!r}")
    return about


def read_bytes(path: Path, largest: int) -> bytes:
    """The bytes of a plain file of at most `largest` of them; raises CaseError."""
    try:
        return files.read_bytes(path, largest)
    except UsageError as error:
        raise CaseError(str(error)) from None


def read_safetensors(path: Path) -> dict[str, Array]:
    """All tensors of a file, copied; raises CaseError if it is damaged."""
    import safetensors.numpy

    data = read_bytes(path, LARGEST)
    try:
        return {name: np.array(t) for name, t in safetensors.numpy.load(data).items()}
    except Exception as error:  # SafetensorError, and KeyError and others for dtypes that NumPy lacks
        raise CaseError(f"{path}: not a sound safetensors file: {str(error)[:120]}") from None


def _check_tensors(folder: Path, described: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    if set(described) != set(tensors):
        odd = sorted(set(described) ^ set(tensors))
        raise CaseError(f"{folder}: {JSON} and {TENSORS} name different tensors: {odd[:3]}")
    for name, array in tensors.items():
        entry = described[name]
        if not isinstance(entry, dict) or entry.get("shape") != list(array.shape):
            raise CaseError(f"{folder}: {name} is not of the shape that {JSON} says")
        if array.dtype.name not in DTYPES or entry.get("dtype") != array.dtype.name:
            raise CaseError(f"{folder}: {name} is not of the dtype that {JSON} says")
        if entry.get("sha256") != hashlib.sha256(array.tobytes()).hexdigest():
            raise CaseError(f"{folder}: {name} has not the sha256 that {JSON} says")
        if array.size == 0 or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            raise CaseError(f"{folder}: {name} is empty or not finite")


def _check_rows(folder: Path, case: Case) -> None:
    """Everything that `compare` relies on."""
    for row in case.kept:
        if not isinstance(row, dict) or any(type(row.get(k)) is not kind for k, kind in ROW.items()):
            raise CaseError(f"{folder}: kept holds a row that is none")
        if row["bits"] not in (1, 2, 4, 8, 16, 32, 64) or not all(type(n) is int and n > 0 for n in row["shape"]):
            raise CaseError(f"{folder}: kept has a row of strange bits or shape")
    for name, array in case.expected.items():
        kept = name.startswith("kept.")
        try:
            row = case.row(name) if kept else {"bits": 64, "shape": []}
        except KeyError:
            raise CaseError(f"{folder}: {name} has no row in kept") from None
        if array.dtype.kind != "f" and not kept:
            raise CaseError(f"{folder}: {name} is not floating point")
        if row["bits"] < 8 and (array.dtype != np.uint8 or array.ndim != 2 or array.size * 8 > LARGEST):
            raise CaseError(f"{folder}: {name} holds no packed codes")
        if row["bits"] < 8 and row["rule"] not in BY_SAMPLE:
            shape = shape_from(row["shape"], case.layout)
            if not shape or packed_shape(shape, row["bits"]) != array.shape:
                raise CaseError(f"{folder}: {name} is not packed from its row's shape")
        for short in PRECISIONS:
            bound = case.tensors.get(f"tol.{short}.{name}", array)
            if bound.shape != array.shape or bound.dtype.kind != array.dtype.kind:
                raise CaseError(f"{folder}: tol.{short}.{name} does not fit its tensor")
        if array.dtype.kind == "f" and f"tol.f32.{name}" not in case.tensors:
            raise CaseError(f"{folder}: {name} has no bound")
    backward = set() if case.op in updates.ATTRS else {"grad_output"}
    below = {"grad_input.x"} if backward and case.op != "network" else set()
    if missing := {"output", "input.x", *backward, *below} - set(case.tensors):
        raise CaseError(f"{folder}: no {sorted(missing)[0]}")
    if any((t < 0).any() for n, t in case.tensors.items() if n.startswith("tol.")):
        raise CaseError(f"{folder}: a negative bound")
