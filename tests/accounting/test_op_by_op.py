"""What runs op by op is said as it is, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import batch, trained

import minitl
from minitl.accounting.op_by_op import ALONE, op_by_op
from minitl.records import Var
from minitl.tape import Tape

FREE = ("pool", "classifier.1")  # of the small network


class Spy(Tape):
    """A real tape that notes the layers whose ops it is handed one by one."""

    ran: list[str]

    def _fresh(self) -> Tape:
        inner = Spy(training=self.training, seed=self.seed, fused=self.fused)
        inner.ran = self.ran
        return inner

    def run(self, *arguments: Any, layer: str, **options: Any) -> Var:
        self.ran.append(layer)
        return super().run(*arguments, layer=layer, **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mobiletl", {}),
        ("mobiletl", {"checkpoint": True}),
        ("mobiletl", {"rules": {"project": "filter2"}}),
        ("mobiletl-recompute", {}),
        ("additive-attention", {}),
    ],
)
def test_it_is_what_a_real_step_runs(method: str, options: dict[str, Any]) -> None:
    model = trained(minitl.networks.digits_irb(), method, **options)
    images, _ = batch(model, n=2, resolution=24)
    spy = Spy()
    spy.ran = []
    model(spy, images)
    assert list(op_by_op(model, batch=2, resolution=24)) == spy.ran


REASONS = {
    "mobiletl": {},
    "mobiletl-recompute": {"features.7.conv.1.0": "features.7.conv.0.0 is run again in backward"},
    "sparse-update": {
        "features.7.conv.0.1": "features.7.conv.0.0 keeps its input by the rule channels",
        "features.7.conv.2.fc1": "features.7.conv.0.0 keeps its input by the rule channels",
    },
}


@pytest.mark.parametrize("method", REASONS)
def test_the_reason_is_that_of_the_least_part_that_could_not_be_fused(method: str) -> None:
    found = op_by_op(trained(minitl.networks.digits_irb(), method), batch=2, resolution=24)
    assert {layer: found.pop(layer) for layer in FREE} == dict.fromkeys(FREE, ALONE)
    assert {layer: found[layer] for layer in REASONS[method]} == REASONS[method]
    assert bool(found) == bool(REASONS[method])


def test_a_stem_whose_input_wants_a_gradient() -> None:
    model = minitl.networks.digits_irb()
    found: dict[str, str] = {}

    class Watch(Tape):
        def not_fused(self, layers: Any, why: str) -> None:
            found.update(dict.fromkeys(layers, why))

    tape = Watch()
    model.stem(tape, tape.variable(Var(np.zeros((1, 8, 8, 3), np.float32))))
    assert set(found.values()) == {"features.0.0 is a dense convolution whose input wants a gradient"}
    found.clear()
    model.stem(Watch(fused=False), Var(np.zeros((1, 8, 8, 3), np.float32)))
    assert set(found.values()) == {"the tape does not fuse"}
