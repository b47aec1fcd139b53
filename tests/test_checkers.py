"""The checkers are checked: each planted fault is found by the check that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import checks
import numpy as np
import pytest
from cases import NAMES, Case, Dims, make, run

from minitl import ops
from minitl.arrays import Array
from minitl.bits import pack
from minitl.ops import Op

Change = Callable[..., Any]


def case_of(name: str, dims: Dims = Dims(n=3, h=7, w=5, c=5, o=4)) -> Case:  # noqa: B008
    return make(NAMES[name], dims)


def planted(case: Case, *, forward: Change | None = None, backward: Change | None = None) -> Case:
    """The case with a faulty op: `forward` changes (y, saved), given the inputs too; `backward` the gradients."""

    def changed(*arrays: Array, **keywords: Any) -> Any:
        y, saved = case.op.functions.forward(*arrays, **keywords)
        return (y, saved) if forward is None else forward(y, saved, arrays)

    def changed_back(saved: Any, gy: Array, **keywords: Any) -> Any:
        gradients = case.op.functions.backward(saved, gy, **keywords)
        return gradients if backward is None else tuple(backward(list(gradients), saved, gy, keywords))

    functions = replace(case.op.functions, forward=changed, backward=changed_back)
    return replace(case, op=replace(case.op, functions=functions))


def found(check: Callable[[Case], None], honest: Case, faulty: Case) -> None:
    check(honest)
    with pytest.raises(AssertionError):
        check(faulty)


# Wrong gradients


@pytest.mark.parametrize("name", [name for name, spec in NAMES.items() if spec.exact])
def test_a_wrong_factor_in_any_one_gradient(name: str) -> None:
    honest = case_of(name)
    for i, wanted in enumerate(honest.needs):
        if wanted:

            def scaled(g: list[Any], *_: Any, i: int = i) -> list[Any]:
                return [*g[:i], g[i] * (1 + 1e-6), *g[i + 1 :]]

            found(checks.check_gradient, honest, planted(honest, backward=scaled))


@pytest.mark.parametrize("name", ["conv", "depthwise_conv"])
def test_a_transposed_tap(name: str) -> None:
    honest = case_of(name)

    def transposed(g: list[Any], *_: Any) -> list[Any]:
        return [g[0], np.ascontiguousarray(g[1].swapaxes(2, 3)), *g[2:]]

    for check in (checks.check_gradient, checks.check_adjoint):
        found(check, honest, planted(honest, backward=transposed))


@pytest.mark.parametrize("name", ["conv", "depthwise_conv"])
def test_an_input_gradient_shifted_by_a_pixel(name: str) -> None:
    honest = case_of(name)
    for check in (checks.check_gradient, checks.check_adjoint):
        found(check, honest, planted(honest, backward=lambda g, *_: [np.roll(g[0], 1, axis=1), *g[1:]]))


@pytest.mark.parametrize(
    ("name", "region"), [("relu-exact", lambda x: x <= 0), ("hard_sigmoid-exact", lambda x: abs(x) >= 3)]
)
def test_a_mask_the_wrong_way_round(name: str, region: Change) -> None:
    honest = case_of(name)

    def flipped(y: Array, saved: Any, arrays: tuple[Array, ...]) -> Any:
        saved.keep("mask", pack(region(arrays[0]).view(np.uint8), 1), ("grad_input",), codes=(arrays[0].shape, 1))
        return y, saved

    found(checks.check_gradient, honest, planted(honest, forward=flipped))


@pytest.mark.parametrize("name", ["conv", "pointwise_conv", "linear", "frozen_norm", "batch_norm"])
def test_a_dropped_bias_gradient(name: str) -> None:
    honest, bias = case_of(name), 2
    assert honest.needs[bias]
    zero = planted(honest, backward=lambda g, *_: [*g[:bias], np.zeros_like(g[bias]), *g[bias + 1 :]])
    none = planted(honest, backward=lambda g, *_: [*g[:bias], None, *g[bias + 1 :]])
    found(checks.check_gradient, honest, zero)
    found(checks.check_contract, honest, none)


def test_the_mean_forgotten_in_the_batch_norm() -> None:
    """gx without its term in the mean of gy: right in direction, wrong by little on large batches."""
    honest = case_of("batch_norm")

    def careless(g: list[Any], saved: Any, gy: Array, keywords: Any) -> list[Any]:
        return [g[0] + (keywords["params"][0] * saved["inv_std"]) * gy.mean(axis=(0, 1, 2)), *g[1:]]

    found(checks.check_gradient, honest, planted(honest, backward=careless))


# A broken contract


def widened(g: list[Any], *_: Any) -> list[Any]:
    return [g[0].astype("float64"), *g[1:]]


BROKEN = {
    "a float64 gradient of float32 inputs": {"backward": widened},
    "a gradient that is not C-contiguous": {"backward": lambda g, *_: [np.asfortranarray(g[0]), *g[1:]]},
    "a gradient nobody wanted": {"backward": lambda g, *_: [*g[:-1], np.zeros(4, "float32")]},
    "an output of another shape": {"forward": lambda y, saved, _: (y[:1], saved)},
    "an output of another dtype": {"forward": lambda y, saved, _: (y.astype("float64"), saved)},
    "a strided output": {"forward": lambda y, saved, _: (np.asfortranarray(y), saved)},
    "a mutated input": {"forward": lambda y, saved, arrays: (arrays[0].__setitem__((0, 0, 0, 0), 9), (y, saved))[1]},
    "a mutated weight": {"forward": lambda y, saved, arrays: (arrays[1].fill(0), (y, saved))[1]},
    "a mutated gy": {"backward": lambda g, _, gy, __: (gy.fill(0), g)[1]},
    "a mutated kept buffer": {"backward": lambda g, saved, *_: (saved["x"].fill(0), g)[1]},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_contract(fault: str) -> None:
    honest = make(NAMES["conv"], Dims(), dtype="float32", needs=(True, True, False))
    found(checks.check_contract, honest, planted(honest, **BROKEN[fault]))


def test_a_gradient_that_depends_on_what_else_is_wanted() -> None:
    honest = case_of("conv")
    meddling = planted(honest, backward=lambda g, _, __, k: [g[0] * (1 + all(k["needs"])), *g[1:]])
    found(checks.check_one_by_one, honest, meddling)


def test_float32_sums_that_lose_digits() -> None:
    honest = case_of("linear")

    def rough(y: Array, saved: Any, _: Any) -> Any:
        return (y.astype("float16").astype(y.dtype) if y.dtype == "float32" else y), saved

    found(checks.check_float32, honest, planted(honest, forward=rough))


# Kept buffers and workspace


def extra(y: Array, saved: Any, arrays: tuple[Array, ...]) -> Any:
    saved.keep("spare", y.copy(), ("grad_input",))
    return y, saved


def copied(y: Array, saved: Any, arrays: tuple[Array, ...]) -> Any:
    saved.keep("x", arrays[0].copy(), ("grad_weight",))
    return y, saved


def view_of_more(y: Array, saved: Any, arrays: tuple[Array, ...]) -> Any:
    saved.keep("x", np.stack([arrays[0]] * 2)[0], ("grad_weight",))
    return y, saved


def misdeclared(y: Array, saved: Any, arrays: tuple[Array, ...]) -> Any:
    saved.keep("x", arrays[0], ("grad_input",))
    return y, saved


@pytest.mark.parametrize("fault", [extra, copied, view_of_more, misdeclared], ids=lambda fault: fault.__name__)
def test_a_kept_buffer_that_cost_does_not_foresee(fault: Change) -> None:
    honest = case_of("conv")
    found(checks.check_kept, honest, planted(honest, forward=fault))


@pytest.mark.parametrize("fault", [extra, misdeclared], ids=lambda fault: fault.__name__)
def test_a_kept_buffer_that_is_not_needed_for_what_it_says(fault: Change) -> None:
    honest = case_of("conv")
    found(checks.check_needed_for, honest, planted(honest, forward=fault))


def hidden(y: Array, saved: Any, arrays: tuple[Array, ...]) -> Any:
    return y + (y - y), saved  # a map in passing


def with_cost(case: Case, **changes: int) -> Case:
    op: Op = case.op

    def cost(*shapes: Any, **keywords: Any) -> ops.Cost:
        return replace(op.functions.cost(*shapes, **keywords), **changes)

    return replace(case, op=replace(op, functions=replace(op.functions, cost=cost)))


def test_memory_in_passing_that_cost_does_not_foresee() -> None:
    honest = make(NAMES["add"], Dims(n=4, h=32, w=32, c=64), dtype="float32")
    megabyte = honest.arrays[0].nbytes
    found(checks.check_workspace, honest, planted(honest, forward=hidden))
    found(checks.check_workspace, honest, planted(honest, backward=lambda g, *_: [(g[0] + 0) * 1, *g[1:]]))
    found(checks.check_workspace, honest, with_cost(honest, forward_workspace=megabyte))
    found(checks.check_workspace, honest, with_cost(honest, backward_workspace=megabyte))


# Comparisons


def test_one_different_bit() -> None:
    honest = case_of("hard_sigmoid-exact")
    result = run(honest)
    checks.check_same(result, run(honest))
    for change in (lambda y: np.nextafter(y, 9), lambda y: y.astype("float32"), lambda y: -y, lambda y: y[:1]):
        with pytest.raises(AssertionError):
            checks.check_same(result, replace(result, y=change(result.y)))
    assert not checks.same_bytes(np.array([0.0]), np.array([-0.0]))
    assert not checks.same_bytes(np.zeros(2), None)
    assert checks.same_bytes(np.array([np.nan]), np.array([np.nan]))
