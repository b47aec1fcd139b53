"""What the fused path is given: arrays of any strides and byte order, parameters replaced, frozen or trained by hand.

Its kernels read arrays by their addresses, and its programs are kept: both must notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import batch, block, noise, trained

import minitl
from minitl.arrays import Array
from minitl.errors import DtypeError, ShapeError
from minitl.records import Var
from minitl.tape import Tape

Change = Callable[[Array], Any]

ATTRS: dict[str, Any] = {"in_channels": 8, "expanded_channels": 16, "out_channels": 8, "se_channels": 4}
X, GY = (noise((3, 6, 5, 8), seed, "float32") for seed in (1, 2))

LAYOUTS: dict[str, Change] = {
    "with gaps": lambda a: np.repeat(a, 2, axis=0)[::2],
    "gaps between channels": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "in Fortran's order": np.asfortranarray,
    "backwards": lambda a: np.flip(np.flip(a).copy()),
}


def step(method: str, x: Array, gy: Array, *, fused: bool) -> dict[str, bytes]:
    """Output and gradients of a block."""
    model, tape = block(method, ATTRS, dtype="float32"), Tape(fused=fused)
    given = tape.variable(Var(x))
    y = model.blocks[0](tape, given)
    found = {"y": y.value, **tape.backward(y, gy)}
    return {name: array.tobytes() for name, array in found.items()} | {
        "gx": tape.input_gradients[given.source].tobytes()
    }


@pytest.mark.parametrize("method", ["ft-blocks", "mobiletl"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_and_slopes_of_any_strides(method: str, layout: str) -> None:
    right, change = step(method, X, GY, fused=False), LAYOUTS[layout]
    assert step(method, change(X), GY, fused=True) == right
    assert step(method, X, change(GY), fused=True) == right


def network() -> Any:
    return trained(minitl.networks.digits_irb(num_classes=3, width=0.5), "ft-blocks", 1)


def gradients(model: Any, *, fused: bool) -> dict[str, bytes]:
    images, labels = batch(model, n=4, resolution=16, classes=3)
    tape = Tape(fused=fused)
    loss = model.loss(tape, model(tape, images), labels)
    return {"loss": loss.value.tobytes(), **{name: g.tobytes() for name, g in tape.backward(loss).items()}}


NAMES = [p.name for p in network().parameters() if not p.name.startswith("classifier")]
SOME = [NAMES[0], *(name for name in NAMES if "conv" in name and name.endswith(("weight", "running_var")))][::3]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("layout", ["with gaps", "in Fortran's order", "another array"])
def test_a_parameter_is_given_another_array(name: str, layout: str) -> None:
    model = network()
    gradients(model, fused=True)  # makes the programs
    parameter = next(p for p in model.parameters() if p.name == name)
    parameter.value = LAYOUTS.get(layout, np.copy)(parameter.value * np.float32(1.5))
    other = network()
    next(p for p in other.parameters() if p.name == name).value *= np.float32(1.5)
    assert gradients(model, fused=True) == gradients(other, fused=False)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a: a.astype(np.float64), DtypeError),
        (lambda a: a.astype(">f4"), DtypeError),
        (lambda a: a[:-1].copy(), ShapeError),
        (lambda a: a.tolist(), DtypeError),
        (lambda a: None, DtypeError),
    ],
)
@pytest.mark.parametrize("name", SOME[:3])
def test_an_array_that_does_not_fit_is_refused(name: str, change: Change, error: type[Exception]) -> None:
    model = network()
    gradients(model, fused=True)
    parameter = next(p for p in model.parameters() if p.name == name)
    before = parameter.value

    def changed() -> None:
        parameter.value = change(before)
        gradients(model, fused=True)

    with pytest.raises(error, match=name.rsplit(".", 2)[0]):
        changed()
    parameter.value = before
    assert gradients(model, fused=True) == gradients(network(), fused=False)


@pytest.mark.parametrize("trains", [True, False])
def test_a_parameter_is_frozen_or_trained_by_hand(trains: bool) -> None:
    model = network()
    names = set(gradients(model, fused=True)) - {"loss"}
    changed = next(p for p in model.parameters() if p.trained is not trains and p.value.ndim == 4)
    changed.trained = trains
    found = gradients(model, fused=True)
    assert set(found) - {"loss"} == names ^ {changed.name}
    assert found == gradients(model, fused=False)


@pytest.mark.parametrize("dtype", [">f4", "float64", "int32"])
def test_a_map_of_another_dtype_is_refused(dtype: str) -> None:
    model = block("mobiletl", ATTRS, dtype="float32")
    with pytest.raises(DtypeError, match=f"expand .*got x {dtype}"):
        model.blocks[0](Tape(), Var(X.astype(dtype)))
