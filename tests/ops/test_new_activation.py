"""A new activation is one call of `activation`: with it the toy trains, runs fused, is predicted and accounted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import Dims, Spec, make
from checks import check_contract, check_float32, check_gradient, check_kept
from models import batch, stir, trained

import minitl
from minitl.accounting import ledger, measure, predict
from minitl.arrays import Array
from minitl.kernels import rules
from minitl.kernels.formula import indicator, minimum, where
from minitl.kernels.rules import ABOVE, AT_LEAST, Codes, FromInput, FromOutput
from minitl.networks import Network
from minitl.ops import Op
from minitl.ops.activations.activation import ACTIVATIONS, activation
from minitl.step import forward_backward
from minitl.tape import Tape
from minitl.training.optimizers import SGD

LEAK = 0.125


def value(x: Any) -> Any:
    """x / 8 below 0, and at most 2."""
    return where(x > 0, minimum(x, 2.0), x * LEAK)


def slope(x: Any) -> Any:
    """1/8, 1 or 0."""
    return where(x > 0, indicator(x < 2, x), LEAK)


RULES = {
    "codes": Codes(2, lambda: (((0.0, ABOVE), (2.0, AT_LEAST)), (LEAK, 1.0, 0.0))),
    "input": FromInput(slope, flops=2),
    "output": FromOutput(slope, flops=2),  # y tells x's interval, as the borders are fixed points
    "sign": Codes(1, lambda: (((0.0, AT_LEAST),), (LEAK, 1.0))),
}


@pytest.fixture(scope="module")
def toy() -> Iterator[Op]:
    yield activation("toy", value, RULES, flops=3, approximate=("sign",))
    del ACTIVATIONS["toy"]


@pytest.mark.parametrize("rule", ["codes", "input", "output"])
def test_its_rules_are_the_slope_and_keep_what_they_say(toy: Op, rule: str) -> None:
    spec = Spec(toy, lambda d: ((d.n, d.h, d.w, d.c),), rule=rule, kinks=(0, 2))
    case = make(spec, Dims(n=3, h=5, w=7, c=5))
    for check in (check_gradient, check_contract, check_float32, check_kept):
        check(case)


def network() -> Network:
    parts = {"activation": "toy"}
    table = {
        "name": "toy_net",
        "names": "torchvision_v2",
        "num_classes": 4,
        "resolution": 12,
        "stem": {"channels": 6, "stride": 1, **parts},
        "block": parts,
        "stages": [
            {"kernel": 3, "expanded": 18, "channels": 8, "stride": 2},
            {"kernel": 3, "expanded": 18, "channels": 8, "squeeze_excite": {"channels": 4, **parts}},
        ],
        "head": {"channels": 18, **parts},
    }
    return stir(minitl.networks.from_table(table))


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("method", ["ft-all", "mobiletl", "mobiletl-exact"])
def test_a_network_of_it_trains_fused_and_to_the_byte(method: str) -> None:
    """Both paths move the parameters to the same bytes; loss falls; predicted = held = traced."""
    moved: list[dict[str, Array]] = []
    for fused in (True, False):
        model = trained(network(), method)
        images, labels = batch(model, n=6, resolution=12, classes=4)
        losses = []
        for _ in range(4):
            tape = Tape(fused=fused)
            loss, _, _ = forward_backward(model, tape, images, labels, apply=SGD(0.1))
            losses.append(float(loss.value))
        assert losses[-1] < losses[0]
        moved.append(model.state_dict())
    assert [n for n, array in moved[0].items() if not np.array_equal(array, moved[1][n])] == []
    measured = measure(model, batch=6, resolution=12)
    assert measured.held_bytes == measured.traced_bytes == predict(model, batch=6, resolution=12).kept_bytes


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("method", "rule", "bits"), [("ft-all", "codes", 2), ("mobiletl", "sign", 1), ("mobiletl-exact", "output", 32)]
)
def test_the_ledger_has_its_rules(method: str, rule: str, bits: int) -> None:
    model = trained(network(), method)
    images, _ = batch(model, n=6, resolution=12, classes=4)
    tape = Tape()
    model(tape, images)
    rows = [row for row in ledger(tape).rows if row.op == "toy" and row.role in ("expand_act", "depthwise_act")]
    assert rows
    assert {row.bits for row in rows} == {bits}
    assert [row.rule for row in rows] == [rule] * len(rows)


def leaky(leak: float, function: Callable[[Any, float], Any], more: float = 0.0) -> Callable[[Any], Any]:
    def value(x: Any, also: float = more) -> Any:
        return where(x > 0, x, function(x, leak)) + also

    return value


def times(x: Any, leak: float) -> Any:
    return x * leak


def half(x: Any, leak: float) -> Any:
    return x * leak * 0.5


def test_a_kernel_kept_on_disk_is_of_the_formula_and_of_all_that_it_computes_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cache of kernels outlives the process: a number changed in the formula's module, or around it, is another."""

    def of(formula: Callable[[Any], Any]) -> str:
        monkeypatch.setitem(rules._formulas, "leaky", formula)
        return rules.digest("leaky", "")

    found = [of(leaky(0.1, times)), of(leaky(0.2, times)), of(leaky(0.1, half)), of(leaky(0.1, times, 1.0)), of(value)]
    monkeypatch.setitem(globals(), "LEAK", 0.25)
    found.append(of(value))
    assert len(set(found)) == len(found)
    assert of(leaky(0.1, times)) == found[0]
