"""What every op promises, as checks that raise AssertionError when it is broken.

A check takes a `Case` whose op may be any op, also one with a planted fault (test_checkers.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from cases import MARGIN, Case, Run, backward, bounds, everything, forward, run, unit, wanting

from minitl import ops
from minitl.accounting.array_memory import counting
from minitl.accounting.predict import FEW
from minitl.arrays import Array, owner
from minitl.bits import packed_shape
from minitl.ops import Op
from minitl.saved import Saved


def dot(a: Array, b: Array) -> float:
    """Inner product in float64, its sum exact."""
    return math.fsum((a.astype(np.float64) * b.astype(np.float64)).ravel())


def same_bytes(a: Array | None, b: Array | None) -> bool:
    """Equal dtype, shape and bits (signs of zeros and NaNs included), or both None."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def check_same(first: Run, second: Run) -> None:
    """Two runs gave the same bytes."""
    one, two = everything(first), everything(second)
    assert one.keys() == two.keys(), f"{list(one)} against {list(two)}"
    for name, array in one.items():
        assert same_bytes(array, two[name]), f"{name} differs in {np.count_nonzero(array != two[name])} elements"


def check_within(got: Run, expected: Run, error: Run) -> None:
    """Every number of y and of the gradients is within its own bound."""
    for name, bound in everything(replace(error, saved=Saved())).items():
        difference = abs(everything(got)[name].astype(np.float64) - everything(expected)[name])
        worst = np.unravel_index(np.argmax(difference - bound), difference.shape)
        assert (difference <= bound).all(), f"{name}: {difference[worst]:.3g} > {bound[worst]:.3g} at {worst}"


# Gradients


def check_gradient(case: Case, seed: int = 0) -> None:
    """<gy, y> along a random line: its slope by central differences against that by the gradients.

    Directions are at most 1 in every coordinate, and lean the way the gradients do, so that a slope is no
    sum of parts that cancel and leave a wrong factor unseen. Where y is of degree two along the line, central
    differences are exact and the step may be as large as the kinks allow. Elsewhere it is about
    the cube root of the unit roundoff, where truncation (step^2 / 6 times the third derivative)
    and rounding (bound on y over step) are of one size. All points are exact: see `cases`.
    """
    step = MARGIN / 2 if case.spec.third is None else 2.0**-17
    rng = np.random.default_rng(seed)
    wanted = [i for i, need in enumerate(case.needs) if need]
    gradients, directions = run(case).gradients, {}
    for i in wanted:
        drawn = rng.integers(-16, 17, case.arrays[i].shape) / 16
        directions[i] = np.where(drawn * gradients[i] < 0, -drawn, drawn)

    def moved(by: float) -> Case:
        return replace(case, arrays=tuple(a + by * directions[i] if need else a for i, (a, need) in both))

    both = list(enumerate(zip(case.arrays, case.needs, strict=True)))
    ahead, behind = moved(step), moved(-step)
    numeric = (dot(case.gy, forward(ahead)[0]) - dot(case.gy, forward(behind)[0])) / (2 * step)
    analytic = math.fsum(dot(gradients[i], directions[i]) for i in wanted)
    u, errors = unit("float64"), [bounds(c, unit("float64")) for c in (ahead, behind, case)]
    rounding = sum(dot(abs(case.gy), e.y) for e in errors[:2]) / (2 * step)
    rounding += sum(dot(abs(directions[i]), errors[2].gradients[i]) for i in wanted)
    truncation = step**2 / 6 * case.spec.third(case) if case.spec.third else 0.0
    tolerance = 2 * rounding + 2 * truncation + u * abs(analytic)  # twice: the inner products, higher derivatives
    slopes = f"slope {analytic:.15g} by the gradients, {numeric:.15g} by differences"
    assert abs(numeric - analytic) <= tolerance, f"{case.op.name}: {slopes}; {tolerance:.2g} allowed"


def check_adjoint(case: Case) -> None:
    """<gy, A v> = <A^T gy, v> exactly, for small integers v and gy, where y = A v + b in each single input v.

    Every product and sum is then an integer below 2^24, which float32 and float64 both hold: there
    is no rounding and no tolerance. A v is y(v) - y(0).
    """
    whole = tuple(np.round(a) if a.dtype.kind == "f" else a for a in case.arrays)
    case = replace(case, arrays=whole, gy=np.round(2 * case.gy))
    for i, gradient in enumerate(run(case).gradients):
        if gradient is None:
            continue
        zeroed = replace(case, arrays=(*whole[:i], np.zeros_like(whole[i]), *whole[i + 1 :]))
        left = dot(case.gy, forward(case)[0]) - dot(case.gy, forward(zeroed)[0])
        assert left == dot(gradient, whole[i]), f"{case.op.name}, input {i}: {left} != {dot(gradient, whole[i])}"


# The contract of forward and backward


def check_contract(case: Case) -> None:
    """Dtypes, shapes, contiguity, None exactly where nothing is wanted, and nothing written that was handed in."""
    op, dtype = case.op, case.arrays[0].dtype
    handed = {f"input {n}": a for a, n in zip(case.arrays, op.inputs, strict=False)} | {"gy": case.gy}
    before = {name: a.tobytes() for name, a in handed.items()}
    y, saved = op.forward(*case.arrays, **case.keywords, rule=case.spec.rule)
    _check_array("y", y, op.output_shape([a.shape for a in case.arrays], case.keywords["attrs"]), dtype)
    kept = {tensor: b.array.tobytes() for tensor, b in saved.buffers.items()}
    gradients = backward(case, saved)
    for name, array in handed.items():
        written = name.removeprefix("input ") in op.updates
        assert written or array.tobytes() == before[name], f"{name} was written"
    assert kept == {tensor: b.array.tobytes() for tensor, b in saved.buffers.items()}, "backward wrote what was kept"
    assert len(gradients) == len(case.arrays), f"{len(gradients)} gradients of {len(case.arrays)} inputs"
    for i, (gradient, array) in enumerate(zip(gradients, case.arrays, strict=True)):
        assert (gradient is not None) == case.needs[i], f"gradient {i} is {gradient} where needs is {case.needs}"
        if gradient is not None:
            _check_array(f"gradient {i}", gradient, array.shape, dtype)
    for tensor, buffer in saved.buffers.items():
        says = buffer.kept
        kind = "int64" if tensor == "labels" else dtype if says.bits >= 8 else "uint8"
        shape = says.shape if says.bits >= 8 else packed_shape(says.shape, says.bits)
        _check_array(f"kept {tensor}", buffer.array, shape, kind)


def _check_array(name: str, array: Array, shape: Any, dtype: Any) -> None:
    assert isinstance(array, np.ndarray), f"{name} is a {type(array).__name__}"
    assert array.shape == shape, f"{name}: shape {array.shape}, not {shape}"
    assert array.dtype == dtype, f"{name}: {array.dtype}, not {dtype}"
    assert array.flags.c_contiguous, f"{name} is not C-contiguous"


def check_one_by_one(case: Case) -> None:
    """A gradient is the same to the bit whatever other gradients are wanted beside it."""
    together = run(case).gradients
    for i, gradient in enumerate(together):
        if gradient is not None:
            assert same_bytes(run(wanting(case, [i])).gradients[i], gradient), f"gradient {i} depends on the others"


def check_float32(case: Case) -> None:
    """In float32 the op gives what it gives in float64, within the bound on float32's rounding."""
    narrow = tuple(a.astype(np.float32) if a.dtype.kind == "f" else a for a in case.arrays)
    got = run(replace(case, arrays=narrow, gy=case.gy.astype(np.float32)))
    error = bounds(case, unit("float32") + unit("float64"))  # the exact result lies within both bounds
    check_within(got, run(case), error)


# Predicted = held


def predicted(case: Case) -> ops.Cost:
    shapes = [a.shape for a in case.arrays]
    return case.op.cost(shapes, case.arrays[0].dtype.name, **case.keywords, rule=case.spec.rule)


def check_kept(case: Case) -> None:
    """`cost` foresees every kept buffer: name, shape, dtype, bits, bytes, use, and whose it is (-1: the output)."""
    y, saved = forward(case)
    foreseen = {k.tensor: k for k in predicted(case).kept}
    assert predicted(case).output == y.shape
    assert list(foreseen) == list(saved.buffers), f"kept {list(saved.buffers)}, foreseen {list(foreseen)}"
    for tensor, buffer in saved.buffers.items():
        kept = foreseen[tensor]
        given = (*case.arrays, y)
        part = kept.source is not None and owner(given[kept.source]).nbytes > given[kept.source].nbytes
        held = buffer.array.nbytes if part else buffer.kept.nbytes  # the caller's larger array is the caller's affair
        assert replace(buffer.kept, nbytes=held) == replace(kept, source=None)
        same = [i if i < len(case.arrays) else -1 for i, a in enumerate(given) if owner(a) is buffer.owner]
        dense = kept.source is not None and given[kept.source].flags.c_contiguous  # others are copied
        assert same == ([kept.source] if dense else []), f"{tensor} is input {same}, foreseen {kept.source}"
        if kept.source is not None:
            assert np.array_equal(buffer.array, given[kept.source]), f"{tensor} is not the input"


def use(op: Op, number: int) -> str:
    """What the ledger calls the gradient of input `number`."""
    if number < op.activations:
        return "grad_input"
    if op.inputs[number] == "bias":
        return "grad_bias"
    return "grad_scale" if op.name.endswith("_norm") else "grad_weight"


class Without(Saved):
    """The same buffers, of which one is named but cannot be read."""

    def __init__(self, saved: Saved, tensor: str) -> None:
        self.buffers, self.input_shape, self.tensor = saved.buffers, saved.input_shape, tensor
        self.rule, self.output = saved.rule, saved.output

    def __getitem__(self, name: str) -> Array:
        if name == self.tensor:
            raise KeyError(name)
        return super().__getitem__(name)


def check_needed_for(case: Case) -> None:
    """Taking a buffer away breaks some gradient of each kind it is declared for, and none of another kind."""
    _, saved = forward(case)
    for tensor, buffer in saved.buffers.items():
        broken = set()
        for i in [i for i, need in enumerate(case.needs) if need]:
            try:
                backward(wanting(case, [i]), Without(saved, tensor))
            except KeyError:
                broken.add(use(case.op, i))
        assert broken == set(buffer.kept.needed_for), (
            f"{tensor}: without it {broken} fail, declared {buffer.kept.needed_for}"
        )


# Workspace


def array_peak(call: Callable[[], Any]) -> int:
    """Bytes that the arrays made by `call`, and given by it, take at the highest moment."""
    with counting() as memory:
        result = call()
        del result
    return memory.peak


def check_workspace(case: Case) -> None:
    """The peak of forward and of backward is what is left behind and the workspace, no more and no less.

    `cost` leaves vectors of one number a channel (or sample) out: two of the longest, or a dozen of short ones.
    """
    cost, itemsize = predicted(case), case.arrays[0].dtype.itemsize
    longest = max(*case.arrays[0].shape[-1:], *case.gy.shape[-1:], case.dims.n)
    slack = FEW + 2 * 8 * longest
    run(case)  # compile first
    made = math.prod(cost.output) * itemsize + sum(k.nbytes for k in cost.kept if k.source is None)
    updated = sum(a.nbytes for a, name in zip(case.arrays, case.op.inputs, strict=False) if name in case.op.updates)
    peak = array_peak(lambda: forward(case)) - updated  # of which `forward` makes copies
    _compare("forward", peak, made + cost.forward_workspace, slack)
    _, saved = forward(case)
    fresh = 0 if cost.passes_gradient else sum(a.nbytes for a, n in zip(case.arrays, case.needs, strict=True) if n)
    _compare("backward", array_peak(lambda: backward(case, saved)), fresh + cost.backward_workspace, slack)


def _compare(call: str, traced: int, foreseen: int, slack: int) -> None:
    assert abs(traced - foreseen) <= slack, f"{call}: {traced:,} bytes traced, {foreseen:,} foreseen, slack {slack:,}"
