"""What kernels know of formulas, and of the backward rules of activations, by name, as the files they are of give them.

A kernel closes over a name and a digest of what it stands for, so that the one kept on disk is of
the formula as it is now; while it is compiled, it looks the name up here.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.kernels.formula import Formula, Traced

# What a norm before an activation does: nothing; scale and shift; centre, scale (x_hat, kept), scale and shift.
NONE, FROZEN, BATCH = 0, 1, 2

AT_LEAST, ABOVE = False, True  # whether a border itself belongs to the interval above it, or below


@dataclass(frozen=True)
class Codes:
    """Keep the number of the interval that x lies in; backward multiplies gy by that interval's level.

    `find()` gives borders and levels, when they are first asked for: some take work to find. Borders are
    sorted pairs (border, AT_LEAST or ABOVE): the code is how many of them x is at least (or above), of which
    the low `bits` bits are kept. Levels are a number for each code kept.
    """

    bits: int
    find: Callable[[], tuple[tuple[tuple[float, bool], ...], tuple[float, ...]]]
    flops: int = 1  # of the backward, per element
    tensor: str = ""  # its name in the ledger, by default `mask` for one bit and `codes` for more

    @cached_property
    def borders(self) -> tuple[tuple[float, bool], ...]:
        """Sorted pairs of a border and whether x must be above it."""
        return self.find()[0]

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """The slope that each code stands for."""
        return self.find()[1]

    def thresholds(self, dtype: str) -> list[Any]:
        """The borders as the least numbers of that dtype that are over them."""
        kind = np.dtype(dtype).type
        return [np.nextafter(kind(b), kind(np.inf)) if above else kind(b) for b, above in self.borders]

    def encode(self, x: Array) -> Array:
        """The codes of x, uint8."""
        codes = np.zeros(x.shape, np.uint8)
        for threshold in self.thresholds(x.dtype.name):
            codes += x >= threshold
        return codes & np.uint8(2**self.bits - 1)


@dataclass(frozen=True)
class FromInput:
    """Keep x; backward multiplies gy by slope(x)."""

    slope: Formula
    flops: int


@dataclass(frozen=True)
class FromOutput:
    """Keep the output y, and the bit x >= border where there is one; backward multiplies gy by slope(y[, bit])."""

    slope: Formula
    flops: int
    border: float | None = None

    @cached_property
    def codes(self) -> Codes | None:
        """The bit as a code of one bit."""
        border = self.border
        return None if border is None else Codes(1, lambda: (((border, AT_LEAST),), (0.0, 1.0)))


Rule = Codes | FromInput | FromOutput


def codes_of(rule: Rule | None) -> Codes | None:
    """The codes that a rule keeps, if it keeps any."""
    return rule if isinstance(rule, Codes) else rule.codes if isinstance(rule, FromOutput) else None


_formulas: dict[str, Formula] = {}
_rules: dict[str, Rule] = {}


def register(name: str, value: Formula, rules: dict[str, Rule]) -> None:
    """Make an activation's formula and rules known to kernels."""
    _formulas[name] = value
    _rules.update({f"{name}:{rule}": known for rule, known in rules.items()})


def formula(name: str) -> Formula:
    """The formula of an activation."""
    return _formulas[name]


def rule_of(name: str, rule: str) -> Rule:
    """A backward rule of an activation."""
    return _rules[f"{name}:{rule}"]


def digest(name: str, rule: str) -> str:
    """Of the formula, if one is named, and of the rule where one is."""
    if not name:
        return ""
    parts: list[Any] = [_fingerprint(_formulas[name])]
    if rule:
        known = rule_of(name, rule)
        codes = codes_of(known)
        parts += [(codes.bits, codes.borders, codes.levels)] if codes else []
        parts += [] if isinstance(known, Codes) else [_fingerprint(known.slope)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _fingerprint(function: Formula) -> Any:
    """What the function does, and with what numbers and functions of its module, or of a function around it."""
    code, names = _written(function.__code__)
    known = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    return code, function.__defaults__, [(name, _meant(known[name])) for name in names if name in known]


def _meant(value: Any) -> Any:
    """What a name stands for; the functions of `formula` are among `compile.sources`."""
    if isinstance(value, FunctionType) and value.__module__ != Traced.__module__:
        return _fingerprint(value)
    return getattr(value, "__name__", repr(value))


def _written(code: CodeType) -> tuple[Any, list[str]]:
    """The instructions and constants, also of functions within, and the names of what else they use."""
    parts: list[Any] = [code.co_code.hex()]
    names = [*code.co_names, *code.co_freevars]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constant, more = _written(constant)
            names += more
        parts.append(constant)
    return parts, names


def identity(x: Any) -> Any:
    """No activation."""
    return x


register("identity", identity, {})
