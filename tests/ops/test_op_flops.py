"""FLOPs by the standard convention: 1 for each + - * /, minimum, maximum and exponential that a formula has."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from minitl import ops
from minitl.kernels.rules import FromInput, FromOutput
from minitl.ops.activations.activation import ACTIVATIONS
from minitl.ops.convolutions import standardised_conv

COUNTED = ("minimum", "maximum", "exp", "log")


def operations(formula: Callable[..., Any]) -> int:
    """How many of them stand in a formula."""
    return sum(
        isinstance(node, ast.BinOp)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in COUNTED)
        for node in ast.walk(ast.parse(inspect.getsource(formula)))
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_counts_the_operations_of_its_formula(name: str) -> None:
    value = import_module(f"minitl.ops.activations.{name}").value
    assert ACTIVATIONS[name].cost(((1,),), "float32", needs=(False,)).flops.forward == operations(value)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_exact_slope_counts_those_of_its_formula_and_one_for_gy(name: str) -> None:
    op = ACTIVATIONS[name]
    for rule, known in (op.elementwise or {}).items():
        if rule not in op.approximate and isinstance(known, FromInput | FromOutput):
            flops = op.cost(((1,),), "float32", needs=(True,), rule=rule).flops.grad_input
            assert flops == operations(known.slope) + 1, rule


class Counting(np.ndarray):
    """Counts what is added, subtracted, multiplied and divided in arrays of as many numbers as the weight has."""

    done = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(value) for value in inputs]
        if "out" in options:
            options["out"] = tuple(np.asarray(out) for out in options["out"])
        result = np.asarray(getattr(ufunc, method)(*plain, **options))
        if ufunc in (np.add, np.subtract, np.multiply, np.divide):
            size = max(value.size for value in plain)
            Counting.done += size if size == WEIGHT[0].size else 0
        return result.view(Counting)


WEIGHT = np.random.default_rng(0).standard_normal((2, 3, 4, 3, 3))  # and its gradient


def test_standardising_a_filter_counts_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, gradient = (array.view(Counting) for array in WEIGHT)
    monkeypatch.setattr(Counting, "done", 0)
    standard, deviation = standardised_conv.standardise(weight)
    forward = Counting.done
    standardised_conv._through(gradient, standard, deviation)
    shapes, n = ((1, 5, 5, 4), weight.shape), weight.size
    mine, plain = (
        op.cost(shapes, "float64", needs=(False, True)).flops for op in (ops.standardised_conv, ops.grouped_conv)
    )
    assert forward == mine.forward - plain.forward == 5 * n
    assert Counting.done - forward == mine.grad_weight - plain.grad_weight == 7 * n
