"""What a tape holds: arrays in `Saved` and nowhere else, and only until they have been used."""

from __future__ import annotations

import gc
import weakref
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from models import batch, block, block_attrs, noise, trained

import minitl
from minitl import ops
from minitl.accounting import ledger
from minitl.arrays import Array, owner
from minitl.errors import UsageError
from minitl.ops import Op
from minitl.parameters import Parameter
from minitl.records import Record, Var
from minitl.saved import Saved
from minitl.tape import Tape


def arrays_in(thing: Any, path: str = "record") -> list[str]:
    """Where arrays can be reached from a record without passing through Saved or a parameter."""
    if isinstance(thing, np.ndarray | Var):
        return [path]
    if isinstance(thing, Saved | Parameter):
        return []
    if isinstance(thing, Op):  # its functions are those of a module: no closure, so no array
        return [f"{path}.{f.name}" for f in fields(thing) if getattr(getattr(thing, f.name), "__closure__", None)]
    if is_dataclass(thing):
        return [p for f in fields(thing) for p in arrays_in(getattr(thing, f.name), f"{path}.{f.name}")]
    if isinstance(thing, dict):
        return [p for key, value in thing.items() for p in arrays_in(value, f"{path}[{key!r}]")]
    if isinstance(thing, tuple | list):
        return [p for i, value in enumerate(thing) for p in arrays_in(value, f"{path}[{i}]")]
    assert isinstance(thing, str | int | float | bool | None), f"{path} is a {type(thing).__name__}"
    return []


@pytest.mark.parametrize("method", ["ft-all", "ft-last", "ft-bias", "ft-norm", "ft-blocks", "mobiletl"])
@pytest.mark.parametrize("network", ["mobilenet_v3_small", "mobilenet_v2"])
def test_records_hold_no_arrays(network: str, method: str) -> None:
    model = trained(minitl.networks.get(network, width=0.25, num_classes=10), method)
    images, labels = batch(model)
    tape = Tape()
    loss = model.loss(tape, model(tape, images), labels)
    assert [p for record in tape.records for p in arrays_in(record)] == []
    tape.backward(loss)
    assert [p for record in tape.records for p in arrays_in(record)] == []
    assert all(not record.saved.buffers for record in tape.records)


def test_the_walk_over_records_finds_a_hidden_array() -> None:
    tape = Tape()
    tape.run(ops.relu, Var(noise((2, 3))), layer="a", role="expand_act")
    record: Any = tape.records[0]
    record.attrs = {"hidden": [np.zeros(2)]}
    assert arrays_in(tape.records[0]) == ["record.attrs['hidden'][0]"]


def test_a_checkpointed_part_that_is_frozen_is_recorded_where_it_ran() -> None:
    """Each record names those that made its inputs, as without a checkpoint."""

    def made(checkpoint: bool) -> list[tuple[str, tuple[int, ...]]]:
        net = trained(minitl.networks.digits_irb(), "ft-last", checkpoint=checkpoint)
        tape = Tape(fused=False)
        net(tape, batch(net)[0])
        return [(record.layer, record.sources) for record in tape.records]

    assert made(checkpoint=True) == made(checkpoint=False)
    tape = Tape()
    first = tape.run(ops.relu, Var(noise((2, 3))), layer="a", role="")
    y = tape.run(ops.relu, first, layer="b", role="")
    assert tape.checkpoint(lambda tape, x: x, y, layer="c", role="").source == y.source == 1


class Watching(Tape):
    """Remembers, weakly, the value each record made."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.made: list[tuple[str, weakref.ref[Array]]] = []

    def _forward(self, op: Op, *rest: Any) -> tuple[Array, Saved]:
        y, saved = super()._forward(op, *rest)
        self.made.append((op.name, weakref.ref(y)))
        return y, saved


@given(attrs=block_attrs())
def test_what_is_not_kept_is_freed(attrs: dict[str, Any]) -> None:
    """After the forward pass those values are alive that `Saved` holds, and the one the caller holds."""
    model, tape = block("ft-blocks", attrs), Watching(fused=False)
    output = model(tape, noise((2, 5, 5, attrs["in_channels"])))
    kept = {id(b.owner) for record in tape.records for b in record.saved.buffers.values()}
    alive = [array for _, ref in tape.made if (array := ref()) is not None]
    assert all(id(owner(array)) in kept or array is output.value for array in alive)
    assert "depthwise_conv" in {name for name, ref in tape.made if ref() is None}, "nobody keeps the input of a norm"
    del alive, array
    tape.backward(output)
    del output
    assert [name for name, ref in tape.made if ref() is not None] == []


def test_nothing_is_kept_in_cycles() -> None:
    """Memory must come back when the last reference goes, not when the collector runs."""
    model = trained(minitl.networks.digits_irb(), "ft-all")
    images, labels = batch(model, resolution=16)
    gc.collect()
    gc.disable()
    try:
        tape = Watching()
        loss = model.loss(tape, model(tape, images), labels)
        buffers = [weakref.ref(b.owner) for record in tape.records for b in record.saved.buffers.values()]
        assert all(ref() is not None for ref in buffers)
        del tape, loss
        of_images = [ref for ref in buffers if ref() is images]
        assert [ref for ref in buffers if ref() is not None] == of_images
    finally:
        gc.enable()


def test_buffers_are_freed_one_by_one_on_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(minitl.networks.digits_irb(), "ft-all")
    images, labels = batch(model, resolution=16)
    tape = Tape(fused=False)
    loss = model.loss(tape, model(tape, images), labels)
    left = []
    original = Tape._backward

    def spy(self: Tape, record: Record, gy: Array) -> Any:
        left.append(sum(r.saved.nbytes for r in self.records))
        return original(self, record, gy)

    monkeypatch.setattr(Tape, "_backward", spy)
    tape.backward(loss)
    assert left[0] == ledger(tape).kept_bytes > 0
    assert all(later <= earlier for earlier, later in pairwise(left))
    assert left[-1] < left[0] / 20


def test_the_ledger_after_backward_is_the_one_before() -> None:
    model = trained(minitl.networks.digits_irb(), "mobiletl", 3)
    images, labels = batch(model, resolution=16)
    tape = Tape()
    loss = model.loss(tape, model(tape, images), labels)
    before = ledger(tape)
    tape.backward(loss)
    assert ledger(tape) == before
    assert before.kept_bytes > 0


def test_an_evaluating_tape_records_and_keeps_nothing() -> None:
    model = trained(minitl.networks.mobilenet_v3_small(num_classes=10, width=0.25), "ft-all")
    images, labels = batch(model)
    tape = Watching(training=False)
    loss = model.loss(tape, model(tape, images), labels)
    assert tape.records == []
    assert ledger(tape).rows == ()
    assert all(ref() is None for name, ref in tape.made if name != "cross_entropy")
    with pytest.raises(UsageError):
        tape.backward(loss)


def test_a_tape_is_walked_back_once() -> None:
    model = trained(minitl.networks.digits_irb(), "ft-last")
    images, labels = batch(model, resolution=16)
    tape = Tape()
    loss = model.loss(tape, model(tape, images), labels)
    tape.backward(loss)
    with pytest.raises(UsageError, match="already walked back; run the forward pass on a new Tape"):
        tape.backward(loss)


def test_without_trained_parameters_there_is_no_backward() -> None:
    model = minitl.networks.digits_irb()
    images, labels = batch(model, resolution=16)
    tape = Tape()
    loss = model.loss(tape, model(tape, images), labels)
    assert ledger(tape).rows == ()
    with pytest.raises(UsageError, match="no trained parameter; apply a method"):
        tape.backward(loss)


@pytest.mark.parametrize("mixed", ["loss on a fresh tape", "backward on a fresh tape", "backward on a used tape"])
def test_values_of_one_tape_are_refused_by_another(mixed: str) -> None:
    model = trained(minitl.networks.digits_irb(), "ft-all")
    images, labels = batch(model, resolution=16)
    one, other = Tape(), Tape()
    logits = model(one, images)
    if mixed == "loss on a fresh tape":
        with pytest.raises(UsageError, match="tape"):
            other.backward(model.loss(other, logits, labels))
        return
    if mixed == "backward on a used tape":
        model.loss(other, model(other, images), labels)
    with pytest.raises(UsageError, match="tape"):
        other.backward(model.loss(one, logits, labels))
