"""Exact rules are the derivative of the forward: central differences, and the adjoint identity."""

from __future__ import annotations

import pytest
from cases import NAMES, Case, cases
from checks import check_adjoint, check_gradient
from hypothesis import given
from hypothesis import strategies as st

from minitl import ops

EXACT = [name for name, spec in NAMES.items() if spec.exact]
WHOLE = [
    ops.conv,
    ops.depthwise_conv,
    ops.pointwise_conv,
    ops.linear,
    ops.gated_conv,
    ops.scale,
    ops.add,
]  # integers stay integers


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_gradients_are_the_slope_of_the_forward(name: str, data: st.DataObject, seed: int) -> None:
    check_gradient(data.draw(cases(NAMES[name])), seed)


@pytest.mark.parametrize("name", [name for name, spec in NAMES.items() if spec.op in WHOLE])
@given(data=st.data())
def test_gradients_are_the_adjoint_of_the_forward(name: str, data: st.DataObject) -> None:
    case: Case = data.draw(cases(NAMES[name], dtypes=("float32", "float64")))
    check_adjoint(case)
