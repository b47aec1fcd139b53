"""The truth of a case: the results of a step in float64 and the bound of each, where a draw is fit to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from minitl.arrays import FLOATS, Array, positions
from minitl.bits import unpack
from minitl.errors import ValueRangeError
from minitl.ops.op import Op
from minitl.oracle import mechanisms, updates
from minitl.oracle.bounds import PRECISIONS
from minitl.oracle.bounds.activations import kinks
from minitl.oracle.case import BY_SAMPLE, kept_name
from minitl.oracle.data import Source, degenerate
from minitl.oracle.error_tape import ErrorTape
from minitl.oracle.inputs import draw
from minitl.oracle.recipes import ACTIVATIONS, BLOCKS, Recipe
from minitl.oracle.running import Ran, input_gradients, run, updated
from minitl.oracle.stochastic import FACTOR, RUNS, TO_FLOAT64, Noise, NoisyTape
from minitl.parameters import Parameter
from minitl.records import OpRecord
from minitl.tape import Tape

DEEP = ("residual", *BLOCKS)  # float16 is not served: bounds add up
NO_HALF = (*DEEP, *mechanisms.ATTRS)
SHARP = 3e-2  # the most a bound may be of the largest element: what cancels is hard to tell from an error
SHARP_HALF = 0.25  # the same for float16, which is not judged in a case that allows more


class RejectedError(Exception):
    """A draw that is no good for comparing."""


class _Step(NamedTuple):
    """Everything of one step, and the bound of each result."""

    results: dict[str, Array]
    bounds: dict[str, Array]
    exact: bool
    positions: dict[str, int]  # that a running statistic was taken over, by its name

    def sharp(self, most: float, name: str) -> bool:
        return _is_sharp(self.bounds[name], most, self.results[name])


def tensors_of(r: Recipe, source: Source, *, patient: bool) -> tuple[dict[str, Array], bool, list[str]]:
    """All tensors of a case, maps being (N, H, W, C); whether its gradients are exact; the precisions with bounds.

    Raises RejectedError where the draw is degenerate or too close to a kink to compare masks exactly; a patient
    caller has one rejected that can be judged in some precision only, or where something cancels.
    """
    if r.op in updates.ATTRS:
        return _of_updates(r, source)
    values = draw(r, source)
    of_steps = _measured if r.op == "network" else partial(_derived, patient=patient)
    steps = of_steps(r, values, source)
    truth = steps["f64"]
    for name, array in truth.results.items():
        if degenerate(array) and not name.startswith("buffer_after"):
            raise RejectedError(f"{name} is constant")
        if patient and name in truth.bounds and not _vanishes(truth, name) and not steps["f32"].sharp(SHARP, name):
            raise RejectedError(f"{name} cancels")
    if "f16" in steps and not all(steps["f16"].sharp(SHARP_HALF, name) for name in steps["f16"].bounds):
        if patient:
            raise RejectedError("float16 would allow too much")
        del steps["f16"]
    bounds = {
        f"tol.{short}.{name}": _rounded_up(bound + truth.bounds[name])
        for short, step in steps.items()
        for name, bound in step.bounds.items()
    }
    return values | truth.results | bounds, truth.exact, list(steps)


def _of_updates(r: Recipe, source: Source) -> tuple[dict[str, Array], bool, list[str]]:
    """The same of an optimizer's steps, which have no backward."""
    values = updates.draw(r.attrs, source)
    truth, of_truth = updates.run(r.op, r.attrs, values, PRECISIONS["f64"])
    bounds = {}
    for short in ("f32", "f64"):
        with np.errstate(over="ignore"):
            _, errors = updates.run(r.op, r.attrs, values, PRECISIONS[short])
        for name, error in errors.items():
            if not _is_sharp(error, SHARP, truth[name]):
                expected = "steps whose constants, such as 1 - beta2, a float32 holds"
                got = f"{name} off by {error.max():.2g}"
                raise ValueRangeError(op=r.op, expected=expected, got=got, remedy="use a beta further below 1")
            bounds[f"tol.{short}.{name}"] = _rounded_up(error + of_truth[name])
    return values | truth | bounds, True, ["f32", "f64"]


def _derived(r: Recipe, values: dict[str, Array], source: Source, *, patient: bool) -> dict[str, _Step]:
    """The step with its bounds, by precision."""
    steps = {}
    for name in ("f32", "f64") if r.op in NO_HALF else ("f32", "f64", "f16"):
        try:
            tape = ErrorTape(PRECISIONS[name])
            output = run(r, values, tape)
            for call in tape.calls:
                _check_distance(call.op, call.rule, call.arrays[0], call.errors[0])
                _check_sides(call.op, call.rule, call.arrays[0])
            if "grad_output" not in values:
                values["grad_output"] = source.normal(output.output.shape)
            steps[name] = _by_convention(r, values, _step(r, values, tape, output))
        except RejectedError:
            if name != "f16" or patient:
                raise
    return steps


def _measured(r: Recipe, values: dict[str, Array], source: Source) -> dict[str, _Step]:
    """The same of a network, whose bounds are measured (see `stochastic`)."""
    values["grad_output"] = np.ones(())
    noise = Noise()
    truth = _noisy_step(r, values, noise)
    read, off = noise.read, [np.zeros(x.shape) for x in noise.read]
    found = {name: np.zeros(array.shape) for name, array in truth.results.items() if array.dtype.kind == "f"}
    for _ in range(RUNS):
        noise.begin(source)
        step = _noisy_step(r, values, noise)
        off = [np.maximum(most, FACTOR * np.abs(x - y)) for most, x, y in zip(off, noise.read, read, strict=True)]
        found = {n: np.maximum(most, FACTOR * np.abs(step.results[n] - truth.results[n])) for n, most in found.items()}
        for call, x, error in zip(noise.calls, read, off, strict=True):
            _check_distance(call.op, call.rule, x, error)
    for name in [n for n in found if n.startswith("param_after.")]:
        parameter = name.removeprefix("param_after.")
        gradient = truth.results[f"grad_param.{parameter}"]
        sizes = np.abs(values[f"param.{parameter}"]) + r.attrs["lr"] * np.abs(gradient)
        found[name] = found[name] + PRECISIONS["f32"].rounding(4, sizes)
    of_float64 = {name: bound * TO_FLOAT64 for name, bound in found.items()}
    return {"f32": truth._replace(bounds=found), "f64": truth._replace(bounds=of_float64)}


def _noisy_step(r: Recipe, values: dict[str, Array], noise: Noise) -> _Step:
    tape = NoisyTape(noise)
    ran = run(r, values, tape)
    positions_of = _positions(tape)
    return _by_convention(r, values, _Step(_results(r, values, tape, ran), {}, ran.exact, positions_of))


def _is_sharp(bound: Array, most: float, result: Array) -> bool:
    """Whether the bound is at most that share of its tensor's largest element."""
    return bool(bound.max() <= most * np.abs(result).max())


def _vanishes(truth: _Step, name: str) -> bool:
    """Whether the tensor is zero but for rounding: the shift of a norm that another one takes away, say."""
    return bool(np.abs(truth.results[name]).max() <= truth.bounds[name].max())


def _step(r: Recipe, values: dict[str, Array], tape: ErrorTape, ran: Ran) -> _Step:
    """Results and bounds of a step on a tape that knows them."""
    kept = {
        kept_name(record.layer, tensor): tape.kept_error(record.saved, tensor)
        for record in tape.records
        for tensor, buffer in record.saved.buffers.items()
        if buffer.array.dtype.kind == "f"
    }
    positions_of, results = _positions(tape), _results(r, values, tape, ran)
    floats = {name: array for name, array in results.items() if array.dtype.kind == "f"}
    bounds = {n: kept[n] if n in kept else tape.updated.get(id(a), tape.error(a)) for n, a in floats.items()}
    if not all(np.isfinite(b).all() for b in bounds.values()):
        raise RejectedError(f"{tape.precision.name} has no finite bound")
    return _Step(results, bounds, ran.exact, positions_of)


def _results(r: Recipe, values: Mapping[str, Array], tape: Tape, ran: Ran) -> dict[str, Array]:
    """Everything that a case expects, of a step whose forward has run."""
    results: dict[str, Array] = {"output": ran.output.value} | {name: var.value for name, var in ran.more.items()}
    for record in tape.records:
        for tensor, buffer in record.saved.buffers.items():
            name = kept_name(record.layer, tensor)
            results[name] = buffer.array
            if (says := buffer.kept).dtype not in FLOATS:
                packed = says.bits < 8 and record.rule not in BY_SAMPLE
                codes = unpack(buffer.array, says.bits, says.shape) if packed else buffer.array
                if degenerate(codes):
                    raise RejectedError(f"{name} is constant")
    moved = {p for record in tape.records if isinstance(record, OpRecord) for p in _updated(record)}
    changed = {n: p for n, p in ran.parameters.items() if p in moved and (p.value != values[f"buffer.{n}"]).any()}
    results |= {f"buffer_after.{name}": p.value for name, p in changed.items()}
    gradients = tape.backward(ran.output, np.array(values["grad_output"], order="C"))
    named = input_gradients(r, tape.input_gradients)
    named |= {f"grad_param.{n}": gradients[n] for n in ran.parameters if n in gradients}
    return results | named | updated(r, values, named)


def _updated(record: OpRecord) -> Iterator[Parameter]:
    """The statistics that the record's op moved."""
    names = record.op.inputs[record.op.activations :]
    return (p for p, name in zip(record.parameters, names, strict=False) if name in record.op.updates)


def _positions(tape: Tape) -> dict[str, int]:
    return {p.name: positions(record.shapes[0]) for record in tape.records for p in record.parameters}


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


def _check_distance(op: Op, rule: str, x: Array, error: Array) -> None:
    """Reject an activation whose inputs are within reach of a kink."""
    for kink in kinks(op.name, rule) if op.name in ACTIVATIONS else ():
        if ((error > 0) & (np.abs(x - kink) <= 4 * error + 16 * 2.0**-24 * (error > 0))).any():
            raise RejectedError(f"an input of {op.name} is too close to {kink}")


def _check_sides(op: Op, rule: str, x: Array) -> None:
    """Reject an activation whose inputs are all on one side of a kink."""
    for kink in kinks(op.name, rule) if op.name in ACTIVATIONS and x.size >= 8 else ():
        if degenerate(x > kink):
            raise RejectedError(f"inputs of {op.name} are on one side of {kink}")


def _rounded_up(bound: Array) -> Array:
    """As float32, not smaller; zero stays zero."""
    with np.errstate(under="ignore"):
        short = bound.astype(np.float32)
    return np.where(bound > 0, np.nextafter(short, np.float32(np.inf)), np.float32(0))
