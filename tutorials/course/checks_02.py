"""Checks of tutorial 2, the tape."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from course.attempt import Attempt, NotYet, Stopped
from course.case import Case
from course.exercise import exercise
from course.tape import Record, backward

Array = Any


class Diamond:
    """A tape in which values and a parameter are used twice, and one record is a dead end.

    z = x * w; a = z^2; L = sum(((a + relu(z)) + a) * w). An addition sends one array to both its sources, and a is
    sent one again while relu's is still pending. It notes who was asked, and when.
    """

    def __init__(self, case: Case) -> None:
        shape = case.map_shape()
        self.parameters = {"w": case.normal(shape[-1])}
        x = case.normal(*shape)
        z = x * self.parameters["w"]
        total = 2 * z**2 + np.maximum(z, 0)
        self.asked: list[int] = []
        self.records = [
            self._record(
                0, "product", ("x", "w"), lambda gy, w: (gy * w, (gy * x).sum(axis=(0, 1, 2)))
            ),
            self._record(1, "square", (0,), lambda gy: (gy * 2 * z,)),
            self._record(2, "relu", (0,), lambda gy: (gy * (z > 0),)),
            self._record(3, "unused", (0,), lambda gy: (gy * 1000,)),
            self._record(4, "add", (1, 2), lambda gy: (gy, gy)),
            self._record(5, "add", (4, 1), lambda gy: (gy, gy)),
            self._record(
                6, "product", (5, "w"), lambda gy, w: (gy * w, (gy * total).sum(axis=(0, 1, 2)))
            ),
            self._record(
                7, "total", (6, "labels"), lambda gy: (np.full(shape, gy, case.dtype), None)
            ),
        ]
        self.loss = 7

    def _record(
        self, number: int, name: str, sources: tuple[Any, ...], slope: Callable[..., Any]
    ) -> Record:
        def back(kept: Any, gy: Array, *used: Array) -> Any:
            self.asked.append(number)
            return slope(gy, *used)

        return Record(name, back, {}, sources)

    def need_order(self) -> None:
        """Raise NotYet where a record was asked before all that use its value."""
        for place, number in enumerate(self.asked):
            late = [n for n in self.asked[place + 1 :] if number in self.records[n].sources]
            if late:
                raise NotYet(
                    f"Record {number} was asked for its gradients before record {late[0]} had given it its gy: walk "
                    "from the loss down to record 0."
                )


@exercise(
    "2a",
    hints=(
        "One dictionary is enough: gradients sent but not yet used, by source. Start with {loss: 1.0}, and go from "
        "the loss down to 0. What do you do when something is sent to a source that has a gradient already?",
        "gy = pending.pop(number); for each source and gradient: pending[source] = pending.get(source, 0) + gradient, "
        "if the gradient is not None. Return pending.",
    ),
)
def walk_back(case: Case, backward_of_tape: Attempt) -> None:
    """Keys, order, and values."""
    diamond, again = Diamond(case), Diamond(case)
    again.records, again.parameters = diamond.records, diamond.parameters
    right = backward(diamond.records, diamond.loss, diamond.parameters)
    diamond.asked.clear()
    try:
        got = backward_of_tape(diamond.records, diamond.loss, diamond.parameters)
    except Stopped as stop:
        raise Stopped(stop.where, stop.error + WHY_STOPPED.get(stop.error, "")) from None
    case.need(
        isinstance(got, dict),
        f"It returns {type(got).__name__}, expected a dictionary: gradients by name.",
    )
    diamond.need_order()
    case.need(
        3 not in diamond.asked,
        "Record 3 was asked, of which the loss does not use the output: pass it by.",
    )
    numbers = [name for name in got if isinstance(name, int)]
    case.need(
        not numbers,
        f"The result holds gradients of records ({', '.join(map(str, numbers))}), which should have been passed on: "
        "walk from the loss down to record 0, and take out of `pending` what you use.",
    )
    case.need(
        {"x", "w"} <= set(got),
        f"Expected gradients of x and w, got those of {', '.join(got) or 'nothing'}.",
    )
    for name in ("x", "w"):
        case.same(
            f"the gradient of {name}",
            got[name],
            right[name],
            {
                "record 0's value is used twice, and w is too: what they are sent adds up, and you kept the last.": (
                    lambda name=name: last_one(diamond)[name]
                ),
                "what they are sent adds up, and you kept the first.": lambda name=name: first_one(
                    diamond
                )[name],
                "`+=` wrote into an array that another source was sent, too: use `a = a + b`.": (
                    lambda name=name: in_place(diamond)[name]
                ),
                "the gradient of the loss with respect to itself is 1: everything else is multiplied by it.": (
                    lambda name=name: 0 * right[name]
                ),
            },
        )


WHY_STOPPED = {
    "KeyError: 3": ". Record 3 was never sent a gradient, for the loss does not depend on it: pass it by.",
    "KeyError: 'labels'": ". 'labels' is the name of an input, not of a parameter: look up those in `parameters` only.",
}


def last_one(tape: Diamond) -> dict[Any, Array]:
    """Gradients of a walk that overwrites."""
    return overwriting(tape, lambda before, new: new)


def first_one(tape: Diamond) -> dict[Any, Array]:
    """Gradients of a walk that lets nothing be added."""
    return overwriting(tape, lambda before, new: before)


def in_place(tape: Diamond) -> dict[Any, Array]:
    """Gradients of a walk that adds in place."""
    return overwriting(tape, operator.iadd)


def overwriting(tape: Diamond, choose: Callable[[Array, Array], Array]) -> dict[Any, Array]:
    """A walk that does otherwise with a second gradient than to add it."""
    pending: dict[Any, Any] = {tape.loss: 1.0}
    for number in range(tape.loss, -1, -1):
        if number in pending:
            record, gy = tape.records[number], pending.pop(number)
            used = [tape.parameters[s] for s in record.sources if s in tape.parameters]
            for source, g in zip(record.sources, record.backward({}, gy, *used), strict=True):
                pending[source] = choose(pending[source], g) if source in pending else g
    return pending


class View(np.ndarray):
    """An array of another class, of which views are not folded into one."""


@exercise(
    "2b",
    hints=(
        "A view has a base, which may be a view itself. Two arrays with the same owner must be counted once: how do "
        "you recognise an owner that you have met?",
        "while array.base is not None: array = array.base; then owners[id(array)] = array.nbytes, and the sum of the "
        "values.",
    ),
)
def bytes_at_owners(case: Case, kept_bytes: Attempt) -> None:
    """Apart, the same twice, views, and views of views."""
    n = int(case.rng.integers(5, 30))
    a, b = case.normal(n, 12), case.normal(3, n)
    both = a.nbytes + b.nbytes

    def same(arrays: list[Array], expected: int, sentence: str) -> None:
        got = kept_bytes(arrays)
        case.need(
            isinstance(got, int | np.integer) and not isinstance(got, bool),
            f"It returns {type(got).__name__}, expected a whole number of bytes.",
        )
        case.need(got == expected, f"{sentence} Expected {expected:,} bytes, got {got:,}.")

    same([], 0, "No arrays keep nothing.")
    same([a, b], both, "Two arrays that have nothing to do with each other: their bytes add.")
    same([a, b, a], both, "The same array twice is one block of memory.")
    same(
        [a[:1]], a.nbytes, f"A slice of {a[:1].nbytes} bytes keeps its owner's {a.nbytes:,} alive."
    )
    same([a[:1], a[2:], a, b.T], both, "Views and their owner are one block: count it once.")
    deep = a[1:].view(View)[1:]
    same([deep, b], both, "The base of a view can be a view: follow .base to its end.")


@exercise(
    "2c",
    hints=(
        "Layer i passes a gradient on to what is below it. Who wants it? Which layers have something to train below "
        "layer i?",
        "[any(below in trained for below in layers[:i]) for i in range(len(layers))].",
    ),
)
def passing_on(case: Case, needed: Attempt) -> None:
    """Random layers, random training; the first and the last never."""
    count = int(case.rng.integers(6, 9))
    layers = [f"layer{i}" for i in range(count)]
    one, other = sorted(case.rng.choice(np.arange(1, count - 2), 2, replace=False))
    for chosen in ([one, other], [one], []):
        need_passing(case, layers, {layers[i] for i in chosen}, needed)


def need_passing(case: Case, layers: list[str], trained: set[str], needed: Attempt) -> None:
    """For one set of trained layers."""
    trains = [layer in trained for layer in layers]
    first = trains.index(True) if trained else len(layers)
    last = max((i for i, t in enumerate(trains) if t), default=-1)
    every = range(len(layers))
    got = needed(list(layers), set(trained))
    case.need(
        isinstance(got, list | tuple),
        f"It returns {type(got).__name__}, expected a list of booleans.",
    )
    case.same(
        "needed",
        np.array(got),
        np.array([i > first for i in every]),
        {
            "the lowest trained layer needs no gradient of its input: nothing below it is trained.": (
                lambda: np.array([i >= first for i in every])
            ),
            "the gradient comes from the loss: the layers above the last trained one pass it on as well.": (
                lambda: np.array([first < i <= last for i in every])
            ),
            "turned round: a gradient is wanted above what is trained, not below.": (
                lambda: np.array([i < last for i in every])
            ),
            "a frozen layer passes the gradient on if something below it trains; these are the trained layers.": (
                lambda: np.array(trains)
            ),
            "below the lowest trained layer nobody wants a gradient.": lambda: np.array(
                [True for _ in every]
            ),
        },
        at={"layer": np.array(layers)},
    )
