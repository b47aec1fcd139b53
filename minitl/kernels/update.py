"""Optimizer updates of one parameter, in place, without a temporary of its size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.arrays import Array, itemsize
from minitl.kernels.broadcast import Broadcast
from minitl.kernels.compile import interpreted
from minitl.kernels.tasks import TASKS, Place, Recorder, given, spans, table_of


def update(formula: Broadcast, arrays: Sequence[Array], numbers: Sequence[float], *, write: bool) -> bool:
    """Whether all that the formula gives of the arrays and numbers is finite; with `write`, write it instead.

    The arrays are flat, of one length and dtype: the parameter, its gradient, and what else there is. What the
    formula gives goes to them in this order, the gradient left out. To look first lets a whole step be refused
    before any parameter has moved.
    """
    if interpreted():
        found = formula.of(*arrays, *numbers, dtype=arrays[0].dtype.name)
        for to, result in zip((arrays[0], *arrays[2:]), found, strict=True):
            if write:
                to[:] = result
        return all(bool(np.isfinite(result).all()) for result in found)
    table = _table(formula if write else formula.checked, arrays[0].size, arrays[0].dtype.name)
    bad = np.zeros(TASKS, np.int64)
    table.run(*arrays, np.array(numbers, np.float64), bad)
    return not bad.any()


@table_of
def _table(record: Recorder, formula: Broadcast, size: int, dtype: str) -> None:
    """The arrays, the numbers, and for each piece a number that says whether something in it is not finite."""
    arrays, numbers = formula.takes.count("c"), formula.takes.count("n")
    for piece, (first, last) in enumerate(spans(size, 1024)):
        record.task()
        places = [place + first * itemsize(dtype) for place in given(arrays)]
        bad = Place(3 + arrays, 8 * piece)
        results = [
            bad if kind == "b" else place for kind, place in zip(formula.makes, [places[0], *places[2:]], strict=False)
        ]
        known = (Place(2 + arrays, 8 * i) for i in range(numbers))
        formula.call(record, (0, 1), last - first, dtype, *places, *known, *results)
