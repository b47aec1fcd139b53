"""A formula gives the same bits run by NumPy and by its kernel; tasks behind a barrier see what those before it did."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from checks import same_bytes
from models import needs_the_compiler, noise

from minitl.arrays import Array
from minitl.kernels import channels, threads
from minitl.kernels.broadcast import Broadcast
from minitl.kernels.channels import MOVE, ONE
from minitl.kernels.tasks import Place, Recorder
from minitl.ops.norms import batch_norm, frozen_norm
from minitl.training import optimizers

FORMULAS = [
    f for module in (channels, batch_norm, frozen_norm, optimizers) for f in vars(module).values()
    if isinstance(f, Broadcast)
]  # fmt: skip
NUMBER = 2.75  # what is given for a letter `i`


def given(formula: Broadcast, m: int, c: int, dtype: str) -> Iterator[Array]:
    """An array for each letter; all are positive, as variances are."""
    for number, kind in enumerate(formula.takes + formula.makes):
        shape = {"m": (m, c), "n": ()}.get(kind, (c,))
        yield np.asarray(np.abs(noise(shape, number, dtype="float64" if kind in "dn" else dtype)) + np.float32(0.5))


@needs_the_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f"{f.name} {f.takes}-{f.makes}")
def test_kernel_and_numpy_give_the_same_bits(formula: Broadcast, dtype: str) -> None:
    for m, c in itertools.product((1, 8, 19), (1, 16, 19)):
        arrays = list(given(formula, m, c, dtype))
        taken, made = arrays[: len(formula.takes)], arrays[len(formula.takes) :]
        expected = [array.copy() for array in made]
        numbers = (NUMBER if kind == "i" else array for kind, array in zip(formula.takes, taken, strict=True))
        formula.into(expected, *numbers)
        record, kinds = Recorder(), formula.takes + formula.makes
        record.task()
        places = [NUMBER if kind == "i" else Place(2 + i) for i, kind in enumerate(kinds)]
        formula.call(record, (0, m), c, dtype, *places)
        record.table().run(*arrays)
        assert all(same_bytes(got, wanted) for got, wanted in zip(made, expected, strict=True)), (m, c)


@needs_the_compiler
def test_what_is_behind_a_barrier_waits() -> None:
    """Of two tasks one is long; the short ones behind the barrier read what the long one writes last."""
    source, middle, out = noise((1 << 22,), dtype="float32"), np.zeros(1 << 22, "float32"), np.zeros(64, "float32")
    record, last = Recorder(), 4 * (source.size - 64)
    for first, count in ((0, source.size), (0, 1)):
        record.task()
        MOVE.call(record, ONE, count, "float32", Place(2, first), Place(3, first))
    record.barrier()
    for i in range(4):
        record.task()
        MOVE.call(record, ONE, 16, "float32", Place(3, last + 64 * i), Place(4, 64 * i))
    before = threads.count()
    threads.set_threads(4)
    try:
        for _ in range(5):
            middle[:] = out[:] = 0
            record.table().run(source, middle, out)
            assert same_bytes(out, source[-64:])
    finally:
        threads.set_threads(before)
