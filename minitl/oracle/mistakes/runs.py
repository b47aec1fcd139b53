"""Whole steps with one mistake in them, and what they give for every tensor of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import tee
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from minitl.arrays import Array
from minitl.oracle.case import CHANNELS_FIRST, CHANNELS_LAST, Case
from minitl.oracle.forms import form_of
from minitl.oracle.make import recipe_of
from minitl.oracle.mistakes import activations, filters, norms, pools, rest, sums
from minitl.oracle.mistakes.tape import Mistake, Step, WrongTape
from minitl.oracle.recipes import ACTIVATIONS, BLOCKS, METHODS, SYMMETRIC, Recipe
from minitl.oracle.running import input_gradients, run, updated

LARGEST = 3e7  # multiply-adds of a case: hundreds of steps are tried
CANNOT = (ArithmeticError, LookupError, TypeError, ValueError)  # what a mistake raises where it cannot be made
Values = dict[str, Array]
T = TypeVar("T")


class Wrong(NamedTuple):
    """A mistake, the layer it was made in ("" for all), and the tensors it changes, from the loss on down.

    They are computed as they are asked for. `far`: whether one layer's mistake is felt in others.
    """

    cause: str
    layer: str
    tensors: Iterable[tuple[str, Array]]
    far: bool = True


class Remembered(Generic[T]):
    """What an iterator gives, computed once and only as far as anybody asks."""

    def __init__(self, source: Iterator[T]) -> None:
        self._first = source

    def __iter__(self) -> Iterator[T]:
        self._first, again = tee(self._first)
        return again


class Runs:
    """Steps of one case in float64, with mistakes in them; none is run twice."""

    def __init__(self, case: Case) -> None:
        self.case, self.recipe = case, recipe_of(case)
        if self.recipe.method == "mobiletl-recompute":  # the same numbers, from one run less
            self.recipe = replace(self.recipe, method="mobiletl-exact")
        self.form = form_of(case)
        x = self.form.taken("input.x", case.tensors["input.x"])
        if x.shape != self.recipe.input_shape or case.macs["forward"] > LARGEST:
            raise ValueError("not to be run")
        self.values = {n: t.astype(np.float64) if t.dtype.kind == "f" else t for n, t in case.inputs.items()}
        self.scaled = ("output", "grad_input.x") if case.attrs.get("reduction") == "sum" else ()
        self.given, tape = self._given(self.values), WrongTape()
        output = run(self.recipe, self.given, tape).output
        self.right, self.met = Step(tape, output, np.array(self.given["grad_output"], order="C")), tape.met
        self._outputs = {single: Remembered(self._all_outputs(single=single)) for single in (False, True)}
        self._gradients = {single: Remembered(self._all_gradients(single=single)) for single in (False, True)}

    def changing_output(self, right: Callable[[str, Array], bool], *, single: bool) -> Iterator[Wrong]:
        """Steps whose mistake changes the output, if `right` says so of its cause and that output.

        The mistake is made in every layer of its ops; with `single`, in one after another.
        """
        for mistake, output in self._outputs[single]:
            if right(mistake.cause, output):
                for variant in mistake.variants(forward=True):
                    with suppress(*CANNOT):
                        yield Wrong(mistake.cause, mistake.layer or "", self._step(variant).items())
        if self.values["input.x"].ndim == 4 and not single:
            other = self._other_layout().items()
            yield Wrong("layout mixed up: maps read and written in the other layout", "", other)

    def changing_gradients(self, *, single: bool) -> Iterable[Wrong]:
        """Steps whose mistake is one of the backward alone, in every layer of its ops or in a single one."""
        return self._gradients[single]

    def _all_outputs(self, *, single: bool) -> Iterator[tuple[Mistake, Array]]:
        for mistake in self._mistakes(single=single):
            if mistake.forward:
                with suppress(*CANNOT):
                    yield mistake, self._laid_out({"output": self.right.output(mistake)})["output"]

    def _all_gradients(self, *, single: bool) -> Iterator[Wrong]:
        for mistake in self._mistakes(single=single):
            for variant in mistake.variants(forward=False):
                tensors = Remembered(self._walked(variant))
                yield Wrong(mistake.cause, mistake.layer or "", tensors, variant.far)
        if single:
            return
        ones = self.values | {"grad_output": np.ones_like(self.values["grad_output"])}
        yield Wrong("gy ignored (taken as 1)", "", self._step(None, values=ones).items())
        for method in METHODS:
            if self.case.op in BLOCKS and method not in (self.case.method, "mobiletl-recompute"):
                other = replace(self.recipe, method=method)
                yield Wrong(f"the gradient of method {method}", "", self._step(None, recipe=other).items())

    def _walked(self, mistake: Mistake) -> Iterator[tuple[str, Array]]:
        """Gradients that the mistake may change, and what follows from them, from the loss on down."""

        def gradients() -> Iterator[tuple[str, Array]]:
            by_source = yield from self.right.gradients(mistake)
            yield from input_gradients(self.recipe, by_source).items()

        with suppress(*CANNOT):
            for name, gradient in gradients():
                found = {name: gradient}
                yield from self._laid_out(found | updated(self.recipe, self.given, found)).items()

    def _mistakes(self, *, single: bool) -> Iterator[Mistake]:
        """All mistakes where they can be made: in every layer of their ops at once, or in each of several by itself."""
        for mistake in self._listed():
            layers = list(dict.fromkeys(layer for op, layer in self.met if mistake.applies(op, layer)))
            if layers and not single:
                yield mistake
            if len(layers) > 1 and single:
                yield from (replace(mistake, layer=layer) for layer in layers)

    def _listed(self) -> Iterator[Mistake]:
        yield from sums.mistakes(self.case.attrs.get("padding", SYMMETRIC))
        for listed in (filters, norms, pools, rest):
            yield from listed.mistakes()
        yield from activations.mistakes(self.case.attrs.get("activation", ""), self.case.rule)
        if self.case.op in ACTIVATIONS:
            yield from activations.at_kinks(self.case)

    def _given(self, values: Values) -> Values:
        return {n: self.form.taken(n, v) for n, v in values.items()}

    def _step(self, mistake: Mistake | None, values: Values | None = None, recipe: Recipe | None = None) -> Values:
        """All results of a step."""
        given = self._given(values or self.values)
        tape = WrongTape(mistake)
        ran = run(recipe or self.recipe, given, tape)
        gradients = tape.backward(ran.output, np.array(given["grad_output"], order="C"))
        found = {"output": ran.output.value} | {f"grad_param.{n}": g for n, g in gradients.items()}
        found |= input_gradients(self.recipe, tape.input_gradients)
        found |= updated(self.recipe, given, found) | {name: var.value for name, var in ran.more.items()}
        if self.case.attrs.get("variance") != "biased":
            after = {f"buffer_after.{n}": p.value for n, p in ran.parameters.items() if p.statistic}
            found |= {name: value for name, value in after.items() if name in self.case.tensors}
        return self._laid_out(found)

    def _laid_out(self, found: Values) -> Values:
        """Results in the form of the case."""
        found |= {n: a * self.recipe.batch for n, a in found.items() if n in self.scaled}
        return {n: self.form.stored(n, a) for n, a in found.items()}

    def _other_layout(self) -> Values:
        """The memory of every map read as that of the other layout, and results written so."""
        axes = CHANNELS_LAST if self.case.layout == "nhwc" else CHANNELS_FIRST
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
