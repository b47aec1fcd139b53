"""Compare what an implementation computed with a case, tensor by tensor, and say where and why it is off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.bits import pack
from minitl.errors import unknown
from minitl.oracle import causes
from minitl.oracle.case import INPUTS, Case, from_layout

FORWARD = ("output", "buffer_after.")
SERVED = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Line:
    """The verdict on one tensor. `ratio` is error / bound at the worst element; 0 where both are 0."""

    tensor: str
    ok: bool
    problem: str = ""
    cause: str = ""
    index: tuple[int, ...] = ()
    got: float = 0.0
    expected: float = 0.0
    error: float = 0.0
    bound: float = 0.0
    ratio: float = 0.0
    ulp: float = 0.0

    def __str__(self) -> str:
        start = f"{'ok   ' if self.ok else 'WRONG'} {self.tensor}"
        if self.problem:
            return f"{start}: {self.problem}" + (f" [likely: {self.cause}]" if self.cause else "")
        return f"{start}: error / bound {self.ratio:.3g}"


@dataclass(frozen=True)
class Report:
    """The verdicts on all tensors of one case."""

    case: str
    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(line.ok for line in self.lines)

    @property
    def worst(self) -> float:
        """The largest error / bound of all tensors."""
        return max((line.ratio for line in self.lines), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary; infinite ratios become null, for JSON has none."""
        lines = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(line).items()}
            for line in self.lines
        ]
        return {"case": self.case, "ok": self.ok, "tensors": lines}

    def __str__(self) -> str:
        wrong = [str(line) for line in self.lines if not line.ok]
        if not wrong:
            return f"{self.case}: ok, {len(self.lines)} tensors, largest error / bound {self.worst:.3g}"
        return "\n".join([f"{self.case}: {len(wrong)} of {len(self.lines)} tensors wrong", *(f"  {w}" for w in wrong)])


class Mismatch(AssertionError):  # noqa: N818 - it reads as what it is
    """Something computed is wrong; `report` says what."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


def compare(case: Case, got: Mapping[str, Any], only: str | None = None) -> Report:
    """Judge every tensor of `got` and every one that is required; `only="forward"` judges those of the forward."""
    if only not in (None, "forward"):
        raise unknown("part to compare", only, ("forward",))
    arrays = {name: _array(value) for name, value in got.items() if value is not None}
    required = [n for n in case.required if only is None or n.startswith(FORWARD)]
    lines = [Line(n, False, "missing", causes.missing(case, n)) for n in required if n not in arrays]
    if only == "forward":
        arrays = {n: a for n, a in arrays.items() if not n.startswith("grad_")}
    return Report(case.name, tuple(lines + [_judge(case, name, array) for name, array in arrays.items()]))


def _array(value: Any) -> Any:
    """As a NumPy array where that is possible, else the value itself."""
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
    except Exception:  # whatever a foreign array may raise: it wants a gradient, lives elsewhere, is ragged
        try:
            return np.asarray(value)
        except Exception:
            return value


def _judge(case: Case, name: str, got: Any) -> Line:
    if not isinstance(got, np.ndarray) or got.dtype.kind not in "fiub":
        kind = got.dtype.name if isinstance(got, np.ndarray) else type(got).__name__
        return Line(name, False, f"expected an array of numbers, got {kind}")
    if name in case.expected:
        return _judge_expected(case, name, got)
    if name in case.tensors:  # a copy of what the case gives: its inputs, its bounds
        what = "an input was changed" if name.startswith(INPUTS) else "a bound of the case was changed"
        return _unchanged(name, got, case.tensors[name], what)
    prefix, _, parameter = name.partition(".")
    if prefix == "buffer_after" and f"buffer.{parameter}" in case.tensors:
        return _unchanged(name, got, case.tensors[f"buffer.{parameter}"], "a frozen buffer was changed")
    if prefix == "grad_param" and {f"param.{parameter}", f"buffer.{parameter}"} & set(case.tensors):
        return Line(name, False, "a gradient for a frozen parameter", "leave it out or give None")
    near = get_close_matches(name, list(case.expected), 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(case.expected)}"
    return Line(name, False, f"unknown tensor; {hint}")


def _unchanged(name: str, got: Array, before: Array, problem: str) -> Line:
    same = got.shape == before.shape and (got.dtype.kind == "f") == (before.dtype.kind == "f")
    same = same and bool((got == (before.astype(got.dtype) if got.dtype.kind == "f" else before)).all())
    return Line(name, same, "" if same else problem)


def _judge_expected(case: Case, name: str, got: Array) -> Line:
    expected = case.tensors[name]
    if expected.dtype.kind != "f":
        return _judge_codes(case, name, got, expected)
    if got.dtype.kind != "f":
        return Line(name, False, f"expected floats, got {got.dtype.name}")
    bound = case.tolerance(name, got.dtype.newbyteorder("=").name)
    if bound is None:
        served = [f for f, s in zip(SERVED, ("f16", "f32", "f64"), strict=True) if f"tol.{s}.{name}" in case.tensors]
        return Line(name, False, f"{got.dtype.name} is not served here, only {', '.join(served)}")
    if got.shape != expected.shape:
        problem = f"expected shape {expected.shape}, got {got.shape}"
        return Line(name, False, problem, causes.of_shape(case, got.shape, expected.shape))
    return _judge_floats(case, name, got, expected, bound)


def _judge_floats(case: Case, name: str, got: Array, expected: Array, bound: Array) -> Line:
    finite = np.isfinite(got)
    if not finite.all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        return Line(name, False, f"{got[at]} at {list(at)}", index=at)
    error = np.abs(got.astype(np.float64) - expected)
    limit = bound.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0, error / limit, 0.0)
    at = tuple(int(i) for i in np.unravel_index(np.argmax(ratio), ratio.shape)) if ratio.size else ()
    largest = np.maximum(np.abs(expected), np.abs(got))[at].astype(got.dtype.newbyteorder("="))
    numbers: dict[str, Any] = {
        "index": at, "got": float(got[at]) + 0.0, "expected": float(expected[at]) + 0.0, "error": float(error[at]),
        "bound": float(limit[at]), "ratio": float(ratio[at]),
        "ulp": float(error[at] / np.spacing(largest)),
    }  # fmt: skip
    if (error <= limit).all():
        return Line(name, True, **numbers)
    problem = (
        f"{numbers['got']:.9g} at {list(at)}, expected {numbers['expected']:.9g}; {int((error > limit).sum())} of "
        f"{error.size} out of bound, the worst {numbers['ratio']:.3g} times, {numbers['ulp']:.3g} ULP"
    )
    return Line(name, False, problem, causes.of_values(case, name, got.astype(np.float64), expected), **numbers)


def _judge_codes(case: Case, name: str, got: Array, expected: Array) -> Line:
    """Packed codes and labels are compared exactly; codes may come unpacked, in the map's shape."""
    row = case.row(name)
    if got.dtype.kind == "f":
        return Line(name, False, f"expected {expected.dtype.name}, got {got.dtype.name}")
    unpacked = row["bits"] < 8 and got.shape == tuple(row["shape"]) and got.dtype.name in ("uint8", "bool")
    if unpacked:
        codes = got.astype(np.uint8)
        if (codes >= 1 << row["bits"]).any():
            return Line(name, False, f"codes of {row['bits']} bits above {(1 << row['bits']) - 1}")
        got = pack(np.ascontiguousarray(from_layout(codes, case.layout)), row["bits"])
    if got.shape != expected.shape:
        either = f" (packed) or {tuple(row['shape'])} (uint8 codes)" if row["bits"] < 8 else ""
        flat = "packed along the channels, or padded by sample" if row["bits"] < 8 and got.ndim == 1 else ""
        return Line(name, False, f"expected shape {expected.shape}{either}, got {got.shape}", flat)
    if row["bits"] < 8 and got.dtype != np.uint8:
        return Line(name, False, f"expected packed uint8, got {got.dtype.name}")
    differs = got != expected
    if not differs.any():
        return Line(name, True)
    at = tuple(int(i) for i in np.argwhere(differs)[0])
    problem = f"{got[at]} at {list(at)}, expected {expected[at]}; {int(differs.sum())} of {got.size} differ"
    cause = causes.of_codes(case, name, got, expected) if row["bits"] < 8 else ""
    return Line(name, False, problem, cause, at, float(got[at]), float(expected[at]), ratio=float("inf"))
