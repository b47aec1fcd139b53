"""Make a case: draw inputs, compute the truth in float64 and its bounds, reject what proves little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from minitl.accounting.ledger import ledger
from minitl.arrays import FLOATS, Array
from minitl.checks import expect_count
from minitl.errors import MinitlError, ValueRangeError, unknown
from minitl.oracle import updates
from minitl.oracle.case import GIVEN, INPUTS, Case, shape_in
from minitl.oracle.data import Source
from minitl.oracle.forms import WEIGHTS, Form
from minitl.oracle.recipes import Recipe, recipe
from minitl.oracle.running import run
from minitl.oracle.truth import RejectedError, tensors_of
from minitl.tape import Tape

LAYOUTS = ("nhwc", "nchw")
ATTEMPTS = 400
PATIENCE = 200  # attempts that must be fit for half precision too, in cases that serve it, and that must be SHARP
REMEMBERED = 256  # draws; a case takes some 20 kB
_Draw = tuple[int, dict[str, Array], bool, list[str]]  # attempt, tensors, whether gradients are exact, precisions
VERSION = 2  # of the generator: other numbers from the same seed


def make(
    op: str,
    *,
    method: str = "ft",
    attrs: Mapping[str, Any] | None = None,
    batch: int = 2,
    height: int = 5,
    width: int = 5,
    seed: int = 0,
    dtype: str = "float32",
    layout: str = "nhwc",
    weights: str = "oihw",
    name: str | None = None,
) -> Case:
    """A case of one's own; the same arguments give the same case on any machine.

    Inputs are float32 numbers whatever `dtype` they are stored in. Draws that are degenerate, or
    that come too close to a kink to compare masks exactly, are rejected and drawn anew.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if weights not in WEIGHTS:
        raise unknown("order of weights", weights, WEIGHTS)
    if dtype not in FLOATS:
        raise unknown("dtype", dtype, FLOATS)
    seed = expect_count("seed", seed, least=0)
    r = recipe(op, method, attrs or {}, batch, height, width)
    form = Form.of(r.attrs, layout, weights)
    attempt, tensors, exact, served = _first_fit(r, seed)
    kept, macs, flops = _kept_and_work(r, tensors, dtype, layout)
    laid = {n: form.stored(n, t) for n, t in tensors.items()}
    own_dtype = {n: dtype if n.startswith(INPUTS) and t.dtype.kind == "f" else t.dtype for n, t in laid.items()}
    sizes = {} if op in updates.ATTRS else {"batch": r.batch, "height": r.height, "width": r.width}
    return Case(
        name=name or "-".join(filter(None, (op, r.method, f"seed{seed}"))),
        op=op,
        attrs=r.attrs | sizes,
        method=r.method,
        rule=r.rule,
        layout=layout,
        dtype=dtype,
        approximate_gradient=not exact,
        tensors={n: np.array(t, own_dtype[n], order="C") for n, t in laid.items()},
        kept=kept,
        macs=macs,
        flops=flops,
        conventions=_conventions(r, weights),
        generator={"name": "minitl", "version": VERSION, "seed": seed, "attempt": attempt, "precisions": served},
    )


@lru_cache(maxsize=REMEMBERED)
def _first_fit(r: Recipe, seed: int) -> _Draw:
    """The first draw that is fit. The last ones are remembered: other layouts and dtypes have the same numbers."""
    reason = ""
    for attempt in range(ATTEMPTS):
        try:
            return attempt, *tensors_of(r, Source(seed, attempt), patient=attempt < PATIENCE)
        except RejectedError as rejected:
            reason = str(rejected)
    remedy = "use fewer elements, more channels or another seed"
    raise ValueRangeError(f"no draw of {ATTEMPTS} is fit to compare with: {reason}", op=r.op, remedy=remedy)


def _kept_and_work(
    r: Recipe, tensors: Mapping[str, Array], dtype: str, layout: str
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """The ledger's rows of a step in that dtype, and its MACs and FLOPs; an optimizer's steps have none."""
    tape = Tape(fused=False)
    if r.op not in updates.ATTRS:
        ran = run(r, {n: t for n, t in tensors.items() if n.startswith(GIVEN)}, tape, dtype)
        if ran.output.needs_grad:
            tape.backward(ran.output)
    book = ledger(tape)
    rows = [asdict(row) | {"shape": list(shape_in(row.shape, layout))} for row in book.rows]
    rows = [row | {name: list(row[name]) for name in ("needed_for", "shared_with")} for row in rows]
    totals = book.to_json()["totals"]
    return rows, totals["macs"], totals["flops"]


def recipe_of(case: Case) -> Recipe:
    """The recipe a case was made by."""
    attrs = dict(case.attrs)
    try:
        sizes: Sequence[Any] = [attrs.pop(name) for name in ("batch", "height", "width")]
    except KeyError as missing:
        raise MinitlError(f"{case.name}: case.json has no attrs.{missing.args[0]}") from None
    return recipe(case.op, case.method, attrs, *sizes)


def _conventions(r: Recipe, weights: str) -> dict[str, Any]:
    return {
        "eps": r.attrs.get("eps"),
        "momentum": r.attrs.get("momentum"),
        "variance": f"biased in normalisation, {r.attrs.get('variance', 'unbiased')} in the running estimate",
        "weights": weights,
        "kinks": {
            "relu": "slope 0 at 0",
            "relu6": "slope 0 at 0 and 6",
            "hard_swish": "slope 0 at -3, 1 at 3",
            "hard_sigmoid": "slope 0 at -3 and 3",
            "sign": "1 where x >= 0",
        },
        "bit_order": "little",
    }
