"""Compare what an implementation computed with a case, tensor by tensor, and say where and why it is off."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.bits import pack
from minitl.errors import UsageError, unknown
from minitl.oracle import causes
from minitl.oracle.bounds.precision import BY_DTYPE
from minitl.oracle.case import BY_SAMPLE, INPUTS, Case, from_layout
from minitl.oracle.mistakes import codes, regions
from minitl.oracle.report import Line, Report

FORWARD = ("output", "buffer_after.", "state_after.")
AFTER = {"buffer_after": ("buffer", "buffer"), "param_after": ("param", "parameter")}  # what it was before
AS_FLOAT32 = "float64, judged as float32: every value is one"
AS_FLOAT64 = "judged as float64; hand in as float32 what was computed in float32"
BFLOAT16 = "it has no bounds here; compute in float32, or convert to float32 to see how far off it is"
UNEXPLAINED = "none of the usual mistakes gives these numbers"


@dataclass(frozen=True)
class Refused:
    """Something handed in that is no array, and the sentence that helps."""

    kind: str
    remedy: str = ""


def compare(case: Case, got: Mapping[str, Any], only: str | None = None) -> Report:
    """Judge every tensor of `got` and every one that is required; `only="forward"` judges those of the forward."""
    arrays = _arrays(case, got)
    lines = _judged(case, arrays, only)
    wrong = [line.tensor for line in lines if not line.ok and not line.cause]
    computed = {
        n: _as_computed(a)[0] if a.dtype.kind == "f" else a for n, a in arrays.items() if isinstance(a, np.ndarray)
    }
    named, unexplained = causes.explain(case, computed, wrong)
    lines = [replace(line, cause=named.get(line.tensor, line.cause)) for line in lines]
    return Report(case.name, tuple(_located(case, line, computed, unexplained) for line in lines))


def _located(case: Case, line: Line, got: Mapping[str, Array], unexplained: Collection[str]) -> Line:
    """A line without a cause says where what is wrong lies, as far as that is simple."""
    name = line.tensor
    if line.ok or line.cause or name not in case.expected or name not in got:
        return line
    said = [line.note, UNEXPLAINED if name in unexplained else "", _where(case, name, got[name])]
    return replace(line, note="; ".join(filter(None, said)))


def _where(case: Case, name: str, got: Array) -> str:
    bound = case.tolerance(name, got.dtype.name)
    if bound is None or got.shape != bound.shape:
        return ""
    with np.errstate(invalid="ignore"), suppress(Exception):  # of strange attributes
        return regions.told(case, name, got, ~(np.abs(got - case.tensors[name]) <= bound))
    return ""


def judge(case: Case, got: Mapping[str, Any], only: str | None = None) -> list[Line]:
    """The verdict on each tensor, without the causes of wrong numbers."""
    return _judged(case, _arrays(case, got), only)


def _arrays(case: Case, got: Mapping[str, Any]) -> dict[str, Any]:
    """What was handed in as NumPy arrays, where that is possible."""
    if not isinstance(got, Mapping):
        remedy = "does the function return?" if got is None else ""
        expected = "results in a dictionary {tensor name: array}"
        raise UsageError(op=case.name, expected=expected, got=type(got).__name__, remedy=remedy)
    return {name: _array(value) for name, value in got.items() if value is not None}


def _judged(case: Case, arrays: Mapping[str, Any], only: str | None) -> list[Line]:
    if only not in (None, "forward"):
        raise unknown("part to compare", only, ("forward",))
    required = [n for n in case.required if only is None or n.startswith(FORWARD)]
    strange = [name for name in arrays if not _is_known(case, name)]
    lines = [Line(n, False, _missing(n, strange), causes.missing(case, n)) for n in required if n not in arrays]
    if only == "forward":
        arrays = {n: a for n, a in arrays.items() if not n.startswith("grad_")}
    return lines + [_judge(case, name, array) for name, array in arrays.items()]


def _missing(name: str, strange: Sequence[str]) -> str:
    """What is said of a missing result; it may be among those that came under names the case does not know."""
    found = get_close_matches(name, strange, 1) or strange[:4]
    return f"missing: it is required; found {', '.join(found)}" if found else "missing: it is required"


def _is_known(case: Case, name: str) -> bool:
    """Whether the case has a tensor of that name, or one that is frozen."""
    prefix, _, parameter = name.partition(".")
    frozen = {f"param.{parameter}", f"buffer.{parameter}"} & case.tensors.keys()
    return name in case.tensors or (prefix in ("grad_param", *AFTER) and bool(frozen))


def _array(value: Any) -> Any:
    """As a NumPy array where that is possible, else what stands in the way."""
    if isinstance(value, np.ndarray):
        return value
    kind = type(value).__name__
    if getattr(value, "requires_grad", False) is True:
        return Refused(f"a {kind} that still requires a gradient", "hand in tensor.detach()")
    if "bfloat16" in str(getattr(value, "dtype", "")):
        return Refused("bfloat16", BFLOAT16)
    try:
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
    except Exception:  # whatever a foreign array may raise: it lives elsewhere, is ragged
        try:
            return np.asarray(value)
        except Exception:
            return Refused(kind)


def _judge(case: Case, name: str, got: Any) -> Line:
    if isinstance(got, Refused):
        return Line(name, False, f"expected an array of numbers, got {got.kind}", got.remedy)
    if got.dtype.kind not in "fiub":
        remedy = BFLOAT16 if "bfloat16" in got.dtype.name else ""
        return Line(name, False, f"expected an array of numbers, got {got.dtype.name}", remedy)
    if name in case.expected:
        return _judge_expected(case, name, got)
    if name in case.tensors:  # a copy of what the case gives: its inputs, its bounds
        what = "an input was changed" if name.startswith(INPUTS) else "a bound of the case was changed"
        return _unchanged(name, got, case.tensors[name], what)
    prefix, _, parameter = name.partition(".")
    of, what = AFTER.get(prefix, ("", ""))
    if f"{of}.{parameter}" in case.tensors:
        return _unchanged(name, got, case.tensors[f"{of}.{parameter}"], f"a frozen {what} was changed")
    if prefix == "grad_param" and _is_known(case, name):
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
    got, note = _as_computed(got)
    bound = case.tolerance(name, got.dtype.name)
    if bound is None:
        served = [dtype for dtype in BY_DTYPE if case.tolerance(name, dtype) is not None]
        return Line(name, False, f"{got.dtype.name} is not served here, only {', '.join(served)}")
    if got.shape != expected.shape:
        counts = f": {got.size} {got.dtype.name}, expected {expected.size}" if got.size != expected.size else ""
        return Line(name, False, f"expected shape {expected.shape}, got {got.shape}{counts}")
    line = _judge_floats(name, got, expected, bound)
    return replace(line, note=AS_FLOAT64 if got.dtype == np.float64 and not line.ok else note)


def _as_computed(got: Array) -> tuple[Array, str]:
    """Of native byte order; as float32 where a float64 array holds float32 numbers only, as after JSON."""
    native = got.astype(got.dtype.newbyteorder("="), copy=False)
    if native.dtype == np.float64:
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = native.astype(np.float32)
        if np.array_equal(narrow, native, equal_nan=True):
            return narrow, AS_FLOAT32
    return native, ""


def _judge_floats(name: str, got: Array, expected: Array, bound: Array) -> Line:
    if not np.isfinite(got).all():
        return _not_finite(name, got)
    error = np.abs(got.astype(np.float64) - expected)
    limit = bound.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(error > 0, error / limit, 0.0)
    at = tuple(int(i) for i in np.unravel_index(np.argmax(ratio), ratio.shape)) if ratio.size else ()
    largest = np.maximum(np.abs(expected), np.abs(got))[at].astype(got.dtype)
    numbers: dict[str, Any] = {
        "index": at, "got": float(got[at]) + 0.0, "expected": float(expected[at]) + 0.0, "error": float(error[at]),
        "bound": float(limit[at]), "ratio": float(ratio[at]),
        "ulp": float(error[at] / np.spacing(largest)),
    }  # fmt: skip
    if (error <= limit).all():
        return Line(name, True, **numbers)
    digits = 17 if got.dtype == np.float64 else 9
    problem = (
        f"{numbers['got']:.{digits}g} at {list(at)}, expected {numbers['expected']:.{digits}g}; "
        f"{int((error > limit).sum())} of {error.size} out of bound, "
        f"the worst {numbers['ratio']:.3g} times, {numbers['ulp']:.3g} ULP"
    )
    return Line(name, False, problem, **numbers)


def _not_finite(name: str, got: Array) -> Line:
    at = tuple(int(i) for i in np.argwhere(~np.isfinite(got))[0])
    counts = [f"{n} {kind}" for kind, n in (("nan", np.isnan(got).sum()), ("inf", np.isinf(got).sum())) if n]
    return Line(name, False, f"{got[at]} at {list(at)}; {' and '.join(counts)} of {got.size}", index=at)


def _judge_codes(case: Case, name: str, got: Array, expected: Array) -> Line:
    """Packed codes and labels are compared exactly; codes may come unpacked, in the map's shape."""
    row = case.row(name)
    if got.dtype.kind == "f":
        return Line(name, False, f"expected {expected.dtype.name}, got {got.dtype.name}")
    whole = tuple(row["shape"])
    coded = row["bits"] < 8 and row["rule"] not in BY_SAMPLE  # along positions, and may come unpacked
    if coded and got.shape in (whole, expected.shape) and got.dtype.name not in ("uint8", "bool"):
        form = "unpacked" if got.shape == whole else "packed"
        remedy = "the shape is right, the dtype is not: use .astype(numpy.uint8)"
        return Line(name, False, f"expected {form} uint8, got {got.dtype.name}", remedy)
    if coded and got.shape == whole:
        unpacked = got.astype(np.uint8)
        if (unpacked >= 1 << row["bits"]).any():
            return Line(name, False, f"codes of {row['bits']} bits above {(1 << row['bits']) - 1}")
        got = pack(np.ascontiguousarray(from_layout(unpacked, case.layout)), row["bits"])
    if got.shape != expected.shape:
        either = f" (packed) or {whole} (uint8 codes)" if coded else ""
        return Line(name, False, f"expected shape {expected.shape}{either}, got {got.shape}")
    differs = got != expected
    if not differs.any():
        return Line(name, True)
    at = tuple(int(i) for i in np.argwhere(differs)[0])
    problem = f"{got[at]} at {list(at)}, expected {expected[at]}; {int(differs.sum())} of {got.size} differ"
    if coded:
        problem += f": {codes.where(case, name, got)}"
    return Line(name, False, problem, "", at, float(got[at]), float(expected[at]), ratio=float("inf"))
