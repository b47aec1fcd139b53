"""What backward does with gradients of parameters: collect them, or apply each as it comes; and what it relies on."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from minitl.arrays import Array
from minitl.errors import UsageError
from minitl.parameters import Parameter
from minitl.records import OpRecord, Record
from minitl.stamps import Stamp, expect_unchanged, stamp


class Apply(Protocol):
    """An optimizer that takes gradients one by one."""

    def begin(self, parameters: Iterable[Parameter]) -> None:
        """Make sure that it can, before anything changes."""

    def apply(self, parameter: Parameter, gradient: Array) -> None:
        """Update one parameter."""


class Sink:
    """Gradients by parameter name; with an optimizer, only those that are not complete yet.

    A gradient is complete, and its parameter's old value read for the last time, when all records
    that have the parameter are walked back.
    """

    def __init__(self, apply: Apply | None, records: Sequence[Record]) -> None:
        self.apply, self.gradients = apply, dict[str, Array]()
        self._left = Counter(p for record in records for p in set(record.parameters)) if apply else Counter()
        if apply:
            apply.begin(p for p in self._left if p.trained)

    def walked(self, record: Record) -> None:
        """Note that a record is walked back, and apply what is complete by that."""
        if self.apply:
            for parameter in set(record.parameters):
                self._left[parameter] -= 1
                if not self._left[parameter] and parameter.name in self.gradients:
                    self.apply.apply(parameter, self.gradients.pop(parameter.name))

    def take(self, parameter: Parameter, gradient: Array) -> bool:
        """Apply the gradient of a parameter that no other record has; False where it is to be collected."""
        if self.apply is None or self._left[parameter] > 1 or parameter.name in self.gradients:
            return False
        self.apply.apply(parameter, gradient)
        return True


def reads_again(record: OpRecord) -> Iterator[tuple[str, Parameter]]:
    """The parameters that the record's backward reads and its forward did not change, and what to call them."""
    for p in record.parameters if any(record.needs) else ():
        if not (p.statistic and record.op.updates):
            yield f"{record.layer}: the parameter {p.name}", p


class Witness:
    """What backward reads a second time: its stamps, taken in the forward pass, and the names of what trains."""

    def __init__(self) -> None:
        self._arrays: list[tuple[str, weakref.ref[Array], Stamp]] = []  # an array that is gone was changed by nobody
        self._parameters: dict[Parameter, tuple[str, Stamp]] = {}

    def array(self, what: str, array: Array) -> None:
        """Remember how an array looks."""
        self._arrays.append((what, weakref.ref(array), stamp(array)))

    def parameters(self, read: Iterable[tuple[str, Parameter]]) -> None:
        """Remember how parameters look (see `reads_again`)."""
        for what, parameter in read:
            if parameter not in self._parameters:
                self._parameters[parameter] = what, stamp(parameter.value)

    def position(self) -> tuple[int, int]:
        """How many arrays and parameters it remembers."""
        return len(self._arrays), len(self._parameters)

    def rewind(self, arrays: int, parameters: int) -> None:
        """Forget all but the first so many."""
        del self._arrays[arrays:]
        for parameter in list(self._parameters)[parameters:]:
            del self._parameters[parameter]

    def expect_own_names(self) -> None:
        """Raise UsageError where two trained parameters share a name: their gradients would be added up."""
        trained = [p.name for p in self._parameters if p.trained]
        if len(set(trained)) < len(trained):
            ((name, _),) = Counter(trained).most_common(1)
            remedy = "walk each network back on a tape of its own, or give one other names"
            raise UsageError(f"two trained parameters are called {name}", op="backward", remedy=remedy)

    def expect_unchanged(self) -> None:
        """Raise UsageError where one of them looks different now."""
        for what, held, before in self._arrays:
            if (array := held()) is not None:
                expect_unchanged(what, array, before)
        for p, (what, before) in self._parameters.items():
            expect_unchanged(what, p.value, before)
