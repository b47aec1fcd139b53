"""The likely cause of a wrong result: compute what usual mistakes give, and see which of them gives what came.

A cause is named only where its numbers are those that came, within the bound. Where several
mistakes give the same numbers all are named. Whatever goes wrong in here, no cause is named and
the verdict stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache

import numpy as np

from minitl.arrays import Array
from minitl.kernels import threads
from minitl.oracle import updates
from minitl.oracle.bounds.precision import BY_DTYPE
from minitl.oracle.case import Case, from_layout
from minitl.oracle.findings import COMPUTED, Findings
from minitl.oracle.mistakes import codes, shapes
from minitl.oracle.mistakes.runs import Runs
from minitl.oracle.recipes import ACTIVATIONS, BLOCKS, COMPOSITES


def missing(case: Case, name: str) -> str:
    """Why a required tensor may not be there."""
    if name == "grad_input.x" and case.op in BLOCKS:
        return "the gradient must also be passed on below the block"
    if name.startswith("buffer_after."):
        return "a missing running statistic: batch statistics move the running ones"
    return "a missing gradient: the parameter is trained" if name.startswith("grad_param.") else ""


def explain(case: Case, got: Mapping[str, Array], wrong: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """The likely cause of each wrong tensor that has one, and those that all mistakes were tried for in vain."""
    named: dict[str, str] = {}
    tried: set[str] = set()
    wrong = [n for n in wrong if n in got and n in case.expected]
    with np.errstate(all="ignore"), _one_thread():
        with suppress(Exception):  # whatever strange attributes or arrays lead to: a guess is not worth failing for
            named |= _by_form(case, got, wrong)
        with suppress(Exception):
            by_value, tried = _by_value(case, got, [n for n in wrong if n not in named])
            named |= by_value
    return {name: cause for name, cause in named.items() if cause}, {n for n in tried if not named.get(n)}


@lru_cache(maxsize=1)
def runs_of(case: Case) -> Runs:
    """Steps with mistakes, remembered for whoever compares another answer to the same case."""
    return Runs(case)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hundreds of small steps are done before several threads have found their work."""
    before = threads.count()
    threads.set_threads(1)
    try:
        yield
    finally:
        threads.set_threads(before)


def _by_form(case: Case, got: Mapping[str, Array], wrong: Sequence[str]) -> dict[str, str]:
    """Causes of wrong shapes and of wrong codes."""
    found = {}
    for name in wrong:
        if case.tensors[name].dtype.kind != "f":
            follows = case.op in COMPOSITES and "output" in wrong  # other values have other codes
            kept = name.startswith("kept.") and not follows
            found[name] = codes.cause(case, name, got[name], _activation(case, name)) if kept else ""
        elif got[name].shape != case.tensors[name].shape:
            found[name] = shapes.cause(case, name, got[name])
        elif _is_swapped(case, name, got[name]):
            found[name] = "big-endian: the bytes of each number are in the opposite order; little-endian is right"
    return found


def _activation(case: Case, name: str) -> tuple[str, Array] | None:
    """The activation that keeps a tensor, and its input (N, H, W, C)."""
    if case.op in ACTIVATIONS:
        return case.op, from_layout(case.tensors["input.x"], case.layout)
    with suppress(Exception):  # a case that cannot be run
        layer = case.row(name)["layer"]
        calls = runs_of(case).right.calls
        return next((c.op.name, c.x) for c in calls if c.layer == layer and c.op.name in ACTIVATIONS)
    return None


def _is_swapped(case: Case, name: str, got: Array) -> bool:
    """Whether the numbers are right once the order of their bytes is turned round."""
    bound, expected = case.tolerance(name, got.dtype.name), case.tensors[name]
    if bound is None or (np.abs(expected) <= bound).all():  # what is as good as zero, tiny numbers are too
        return False
    return bool((np.abs(got.byteswap().astype(np.float64) - expected) <= bound).all())


def _by_value(case: Case, got: Mapping[str, Array], wrong: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Causes of wrong numbers, and the tensors that every mistake was tried for."""
    judged = {n: a for n, a in got.items() if n in case.expected and case.tolerance(n, a.dtype.name) is not None}
    floats = [n for n in wrong if n in judged and np.isfinite(got[n]).all()]
    compared = {n: a for n, a in judged.items() if a.shape == case.tensors[n].shape}
    following = {name: gradient for name in floats if (gradient := _followed(case, compared, name))}
    others = [name for name in floats if name not in following]
    named, tried = _of_floats(case, compared, others) if others else ({}, set())
    of_gradient = {name: named.get(gradient, "") for name, gradient in following.items()}
    return named | of_gradient, tried | {name for name, gradient in following.items() if gradient in tried}


def _followed(case: Case, got: Mapping[str, Array], name: str) -> str:
    """The wrong gradient that a wrong updated parameter follows from rightly."""
    gradient = name.replace("param_after.", "grad_param.", 1)
    if not name.startswith("param_after.") or gradient not in got:
        return ""
    before = case.tensors[name.replace("_after", "", 1)].astype(np.float64)
    step = case.attrs["lr"] * got[gradient].astype(np.float64)
    rounding = 4 * BY_DTYPE[got[name].dtype.name].u * (np.abs(before) + np.abs(step))
    return gradient if (np.abs(got[name] - (before - step)) <= rounding).all() else ""


def _of_floats(case: Case, compared: Mapping[str, Array], floats: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    found = Findings(case, compared, floats)
    found.of_results()
    if case.op in updates.ATTRS:
        found.of_updates()
        return found.named(), set(floats)
    tried = set()
    with suppress(Exception):  # a case that cannot be run keeps what its results alone told
        found.of_runs(runs_of(case))
        tried = {name for name in floats if name.startswith(COMPUTED)}
    return found.named(), tried
