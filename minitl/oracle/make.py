"""Make a case: draw inputs, compute the truth in float64 and its bounds, reject what proves little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from minitl.accounting.ledger import ledger
from minitl.arrays import FLOATS, Array, positions
from minitl.bits import unpack
from minitl.errors import MinitlError, ValueRangeError, unknown
from minitl.oracle import updates
from minitl.oracle.bounds import PRECISIONS, Call, kinks
from minitl.oracle.case import Case, kept_name, shape_in
from minitl.oracle.data import Source, degenerate
from minitl.oracle.error_tape import ErrorTape
from minitl.oracle.forms import WEIGHTS, Form
from minitl.oracle.recipes import ACTIVATIONS, Recipe, draw, input_gradients, recipe, run
from minitl.tape import Tape

LAYOUTS = ("nhwc", "nchw")
ATTEMPTS = 400
PATIENCE = 200  # attempts that must be fit for half precision too, in cases that serve it, and that must be SHARP
SHARP = 3e-2  # the most a bound may be of the largest element: what cancels is hard to tell from an error
SHARP_HALF = 0.25  # the same for float16, which is not judged in a case that allows more
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
    if not isinstance(seed, int) or seed < 0:
        raise ValueRangeError(expected="a seed from 0", got=str(seed))
    made = recipe(op, method, attrs or {}, batch, height, width)
    if op in updates.ATTRS:
        return _update_case(made, seed, dtype, _form(made, layout, weights), name or f"{op}-seed{seed}")
    reason = ""
    for attempt in range(ATTEMPTS):
        try:
            tensors, exact, served = _tensors(made, Source(seed, attempt), patient=attempt < PATIENCE)
        except _RejectedError as rejected:
            reason = str(rejected)
            continue
        name = name or "-".join([op, *([made.method] if made.method else []), f"seed{seed}"])
        generator = {"name": "minitl", "version": VERSION, "seed": seed, "attempt": attempt, "precisions": served}
        return _case(made, name, tensors, exact, dtype, _form(made, layout, weights), generator)
    remedy = "use fewer elements, more channels or another seed"
    raise ValueRangeError(f"no draw of {ATTEMPTS} is fit to compare with: {reason}", op=op, remedy=remedy)


def _form(r: Recipe, layout: str, weights: str) -> Form:
    return Form(layout, weights, r.attrs["channels"] if r.attrs.get("labels") == "onehot" else 0)


class _RejectedError(Exception):
    """A draw that is no good for comparing."""


class _Step(NamedTuple):
    """Everything of one step, and the bound of each result."""

    results: dict[str, Array]
    bounds: dict[str, Array]
    exact: bool
    positions: dict[str, int]  # that a running statistic was taken over, by its name


def _tensors(r: Recipe, source: Source, *, patient: bool) -> tuple[dict[str, Array], bool, list[str]]:
    """All tensors of a case, in (N, H, W, C) and float64."""
    values = draw(r, source)
    steps = {}
    for name in ("f32", "f64") if r.op == "irb" else ("f32", "f64", "f16"):
        try:
            tape = ErrorTape(PRECISIONS[name])
            output = run(r, values, tape)
            for call in tape.calls:
                _check_kinks(call)
            if "grad_output" not in values:
                values["grad_output"] = source.normal(output.output.shape)
            steps[name] = _by_convention(r, values, _step(r, values, tape, output))
        except _RejectedError:
            if name != "f16" or patient:
                raise
    truth = steps["f64"]
    for name, array in truth.results.items():
        if degenerate(array) and not name.startswith("buffer_after"):
            raise _RejectedError(f"{name} is constant")
        if patient and name in truth.bounds and steps["f32"].bounds[name].max() > SHARP * np.abs(array).max():
            raise _RejectedError(f"{name} cancels")
    if "f16" in steps and not _sharp(steps["f16"], SHARP_HALF):
        if patient:
            raise _RejectedError("float16 would allow too much")
        del steps["f16"]
    tensors = values | truth.results
    for short, step in steps.items():
        for name, bound in step.bounds.items():
            tensors[f"tol.{short}.{name}"] = _rounded_up(bound + truth.bounds[name])
    return tensors, truth.exact, list(steps)


def _sharp(step: _Step, most: float) -> bool:
    """Whether every bound is at most that share of its tensor's largest element."""
    return all(bound.max() <= most * np.abs(step.results[name]).max() for name, bound in step.bounds.items())


def _step(r: Recipe, values: dict[str, Array], tape: ErrorTape, ran: Any) -> _Step:
    results: dict[str, Array] = {"output": ran.output.value}
    bounds = {"output": tape.error(ran.output.value)}
    for record in tape.records:
        for tensor, buffer in record.saved.buffers.items():
            name = kept_name(record.layer, tensor)
            results[name] = buffer.array
            if buffer.array.dtype.kind == "f":
                bounds[name] = tape.kept_error(record.saved, tensor)
            else:
                codes = unpack(buffer.array, buffer.bits, buffer.shape) if buffer.bits < 8 else buffer.array
                if degenerate(codes):
                    raise _RejectedError(f"{name} is constant")
    for name, parameter in ran.parameters.items():
        if id(parameter.value) in tape.updated:
            results[f"buffer_after.{name}"] = parameter.value
            bounds[f"buffer_after.{name}"] = tape.updated[id(parameter.value)]
    gradients = tape.backward(ran.output, np.array(values["grad_output"], order="C"))
    of_inputs = input_gradients(r, tape.input_gradients)
    named = of_inputs | {f"grad_param.{n}": gradients[n] for n in ran.parameters if n in gradients}
    bounds |= {name: tape.error(g) for name, g in named.items()}
    if not all(np.isfinite(b).all() for b in bounds.values()):
        raise _RejectedError(f"{tape.precision.name} has no finite bound")
    positions_of = {p.name: positions(record.shapes[0]) for record in tape.records for p in record.parameters}
    return _Step(results | named, bounds, ran.exact, positions_of)


def _by_convention(r: Recipe, values: Mapping[str, Array], step: _Step) -> _Step:
    """Running variances and the loss by the conventions that the case asks for."""
    results, bounds = dict(step.results), dict(step.bounds)
    if r.attrs.get("variance") == "biased":
        for name in [n for n in results if n.startswith("buffer_after.") and n.endswith("running_var")]:
            m = step.positions[name.removeprefix("buffer_after.")]
            kept = (1 - r.attrs["momentum"]) * values[name.replace("_after", "", 1)]
            results[name] = kept + (results[name] - kept) * ((m - 1) / m)
    if r.attrs.get("reduction") == "sum":
        for name in ("output", "grad_input.x"):
            results[name], bounds[name] = results[name] * r.batch, bounds[name] * r.batch
    return _Step(results, bounds, step.exact, step.positions)


def _check_kinks(call: Call) -> None:
    """Reject an activation whose inputs are within reach of a kink, or all on one side of it."""
    if call.op.name not in ACTIVATIONS:
        return
    x, error = call.arrays[0], call.errors[0]
    for kink in kinks(call.op.name, call.rule):
        if ((error > 0) & (np.abs(x - kink) <= 4 * error + 16 * 2.0**-24 * (error > 0))).any():
            raise _RejectedError(f"an input of {call.op.name} is too close to {kink}")
        if x.size >= 8 and degenerate(x > kink):
            raise _RejectedError(f"inputs of {call.op.name} are on one side of {kink}")


def _rounded_up(bound: Array) -> Array:
    """As float32, not smaller; zero stays zero."""
    with np.errstate(under="ignore"):
        short = bound.astype(np.float32)
    return np.where(bound > 0, np.nextafter(short, np.float32(np.inf)), np.float32(0))


def _case(
    r: Recipe,
    name: str,
    tensors: Mapping[str, Array],
    exact: bool,
    dtype: str,
    form: Form,
    generator: dict[str, Any],
) -> Case:
    values = {n: t for n, t in tensors.items() if n.startswith(("input.", "param.", "buffer."))}
    tape = Tape(fused=False)
    ran = run(r, values, tape, dtype)
    if ran.output.needs_grad:
        tape.backward(ran.output)
    book = ledger(tape)
    rows = [{**asdict(row), "shape": list(shape_in(row.shape, form.layout))} for row in book.rows]
    for row in rows:
        row.update(needed_for=list(row["needed_for"]), shared_with=list(row["shared_with"]))
    totals = book.to_json()["totals"]
    own = ("input.", "param.", "buffer.", "grad_output")
    laid = {n: form.stored(n, t) for n, t in tensors.items()}
    stored = {
        n: np.array(t, dtype if n.startswith(own) and t.dtype.kind == "f" else t.dtype, order="C")
        for n, t in laid.items()
    }
    return Case(
        name=name,
        op=r.op,
        attrs={**r.attrs, "batch": r.batch, "height": r.height, "width": r.width},
        method=r.method,
        rule=r.rule,
        layout=form.layout,
        dtype=dtype,
        approximate_gradient=not exact,
        tensors=stored,
        kept=rows,
        macs=totals["macs"],
        flops=totals["flops"],
        conventions=_conventions(r, form),
        generator=generator,
    )


def _update_case(r: Recipe, seed: int, dtype: str, form: Form, name: str) -> Case:
    """Steps of an optimizer, which have neither a backward nor a ledger."""
    given = updates.draw(r.op, r.attrs, Source(seed))
    truth, of_truth = updates.run(r.op, r.attrs, given, PRECISIONS["f64"])
    tensors = {n: a.astype(dtype) for n, a in given.items()} | truth
    for short in ("f32", "f64"):
        for n, bound in updates.run(r.op, r.attrs, given, PRECISIONS[short])[1].items():
            tensors[f"tol.{short}.{n}"] = _rounded_up(bound + of_truth[n])
    none = dict.fromkeys(("forward", "grad_input", "grad_weight", "recompute"), 0) | {"convention": "standard"}
    return Case(
        name=name, op=r.op, attrs=r.attrs, method="", rule="", layout=form.layout, dtype=dtype,
        approximate_gradient=False, tensors=tensors, kept=[], macs=none, flops=none,
        conventions=_conventions(r, form),
        generator={"name": "minitl", "version": VERSION, "seed": seed, "attempt": 0, "precisions": ["f32", "f64"]},
    )  # fmt: skip


def recipe_of(case: Case) -> Recipe:
    """The recipe a case was made by."""
    attrs = dict(case.attrs)
    try:
        sizes: Sequence[Any] = [attrs.pop(name) for name in ("batch", "height", "width")]
    except KeyError as missing:
        raise MinitlError(f"{case.name}: case.json has no attrs.{missing.args[0]}") from None
    return recipe(case.op, case.method, attrs, *sizes)


def _conventions(r: Recipe, form: Form) -> dict[str, Any]:
    return {
        "eps": r.attrs.get("eps"),
        "momentum": r.attrs.get("momentum"),
        "variance": f"biased in normalisation, {r.attrs.get('variance', 'unbiased')} in the running estimate",
        "weights": form.weights,
        "kinks": {
            "relu": "slope 0 at 0",
            "relu6": "slope 0 at 0 and 6",
            "hard_swish": "slope 0 at -3, 1 at 3",
            "hard_sigmoid": "slope 0 at -3 and 3",
            "sign": "1 where x >= 0",
        },
        "bit_order": "little",
    }
