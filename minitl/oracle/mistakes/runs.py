"""Whole steps with one mistake in them, and what they give for every tensor of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from minitl.arrays import Array
from minitl.oracle.case import Case
from minitl.oracle.forms import form_of
from minitl.oracle.make import recipe_of
from minitl.oracle.mistakes import activations, filters, norms, pools, rest, sums
from minitl.oracle.mistakes.tape import Mistake, Walk, WrongTape
from minitl.oracle.recipes import ACTIVATIONS, BLOCKS, METHODS, Recipe
from minitl.oracle.running import input_gradients, run, updated

LARGEST = 3e7  # multiply-adds of a case: hundreds of steps are tried
CANNOT = (ArithmeticError, LookupError, TypeError, ValueError)  # what a mistake raises where it cannot be made
Values = dict[str, Array]


class Wrong(NamedTuple):
    """A mistake, the layer it was made in ("" for all), and the tensors it gives."""

    cause: str
    layer: str
    tensors: Mapping[str, Array]


class Runs:
    """Steps of one case in float64."""

    def __init__(self, case: Case) -> None:
        self.case, self.recipe = case, recipe_of(case)
        if self.recipe.method == "mobiletl-recompute":  # the same numbers, from one run less
            self.recipe = replace(self.recipe, method="mobiletl-exact")
        self.form = form_of(case)
        x = self.form.taken("input.x", case.tensors["input.x"])
        if x.shape != self.recipe.input_shape or case.macs["forward"] > LARGEST:
            raise ValueError("not to be run")
        self.values = {n: t.astype(np.float64) if t.dtype.kind == "f" else t for n, t in case.inputs.items()}

    def changing_output(self, right: Callable[[Array], bool], *, single: bool) -> Iterator[Wrong]:
        """Steps whose mistake changes the output, if it then is what `right` says.

        The mistake is made in every layer of its ops; with `single`, in one after another.
        """
        for mistake in self._mistakes(single=single):
            for variant in mistake.variants(forward=True):
                tensors: Values = {}
                with suppress(*CANNOT):
                    tensors = self._step(variant, right)
                if not tensors:
                    break  # the other variants have the same output
                yield Wrong(mistake.cause, mistake.layer or "", tensors)
        if self.values["input.x"].ndim == 4 and not single:
            yield Wrong("layout mixed up: maps read and written in the other layout", "", self._other_layout())

    def changing_gradients(self, *, single: bool) -> Iterator[Wrong]:
        """Steps whose mistake is one of the backward alone, in every layer of its ops or in a single one."""
        given, tape = self._given(self.values), WrongTape()
        walk = Walk(tape, run(self.recipe, given, tape).output, np.array(given["grad_output"], order="C"))
        for mistake in self._mistakes(single=single):
            for variant in mistake.variants(forward=False):
                with suppress(*CANNOT):
                    by_name, by_source = walk(variant)
                    found = by_name | input_gradients(self.recipe, by_source)
                    found |= updated(self.recipe, given, found)
                    yield Wrong(mistake.cause, mistake.layer or "", self._laid_out(found))
        if single:
            return
        ones = self.values | {"grad_output": np.ones_like(self.values["grad_output"])}
        yield Wrong("gy ignored (taken as 1)", "", self._step(None, values=ones))
        for method in METHODS:
            if self.case.op in BLOCKS and method not in (self.case.method, "mobiletl-recompute"):
                other = replace(self.recipe, method=method)
                yield Wrong(f"the gradient of method {method}", "", self._step(None, recipe=other))

    def _mistakes(self, *, single: bool) -> Iterator[Mistake]:
        """All mistakes where they can be made: in every layer of their ops at once, or in each of several by itself."""
        tape = WrongTape()
        run(self.recipe, self._given(self.values), tape)
        for mistake in self._listed():
            layers = list(dict.fromkeys(layer for op, layer in tape.met if mistake.applies(op, layer)))
            if layers and not single:
                yield mistake
            if len(layers) > 1 and single:
                yield from (replace(mistake, layer=layer) for layer in layers)

    def _listed(self) -> Iterator[Mistake]:
        for listed in (sums, filters, norms, pools, rest):
            yield from listed.mistakes()
        yield from activations.mistakes(self.case.attrs.get("activation", ""), self.case.rule)
        if self.case.op in ACTIVATIONS:
            yield from activations.at_kinks(self.case)

    def _given(self, values: Values) -> Values:
        return {n: self.form.taken(n, v) for n, v in values.items()}

    def _step(
        self, mistake: Mistake | None, output: Callable[[Array], bool] | None = None,
        values: Values | None = None, recipe: Recipe | None = None,
    ) -> Values:  # fmt: skip
        """All results of a step, or none if `output` does not take its output."""
        given = self._given(values or self.values)
        tape = WrongTape(mistake)
        ran = run(recipe or self.recipe, given, tape)
        if self.case.attrs.get("reduction") == "sum":
            ran.output.value = ran.output.value * self.recipe.batch
        if output and not output(self.form.stored("output", ran.output.value)):
            return {}
        gradients = tape.backward(ran.output, np.array(given["grad_output"], order="C"))
        found = {f"grad_param.{n}": g for n, g in gradients.items()}
        found |= {"output": ran.output.value} | input_gradients(self.recipe, tape.input_gradients)
        found |= updated(self.recipe, given, found) | {name: var.value for name, var in ran.more.items()}
        if self.case.attrs.get("variance") != "biased":
            after = {f"buffer_after.{n}": p.value for n, p in ran.parameters.items() if p.statistic}
            found |= {name: value for name, value in after.items() if name in self.case.tensors}
        return self._laid_out(found)

    def _laid_out(self, found: Values) -> Values:
        """Results in the form of the case."""
        return {n: self.form.stored(n, a) for n, a in found.items()}

    def _other_layout(self) -> Values:
        """The memory of every map read as that of the other layout, and results written so."""
        axes = (0, 2, 3, 1) if self.case.layout == "nhwc" else (0, 3, 1, 2)
        values = dict(self.values)
        for name in ("input.x", "grad_output"):
            if (given := values[name]).ndim == 4:
                other = tuple(given.shape[axes.index(i)] for i in range(4))
                values[name] = given.reshape(other).transpose(axes)
        found = self._step(None, values=values)
        back = tuple(np.argsort(axes))
        for name in {"output", "grad_input.x"} & found.keys():
            if found[name].ndim == 4:
                found[name] = found[name].transpose(back).reshape(self.case.tensors[name].shape)
        return found
