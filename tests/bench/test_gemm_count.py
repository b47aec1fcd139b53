"""The products of a step: of every op that is one, and none is left out because its name is not known."""

from __future__ import annotations

from typing import Any

import pytest

from minitl.bench.cases import select
from minitl.bench.gemm import WEIGHTS, _products, products
from minitl.errors import UnknownNameError


@pytest.mark.parametrize("case", select("all"), ids=lambda case: case.name)
def test_every_op_that_is_timed_is_known(case: Any) -> None:
    for tuning in case.tunings:
        assert products(case, tuning)


def test_an_op_nobody_has_looked_at_is_not_counted_as_nothing() -> None:
    strange = type("Strange", (), {"name": "grouped_conv", "layer": "here"})()
    with pytest.raises(UnknownNameError, match="here: unknown op to count products of 'grouped_conv'"):
        list(_products(strange))
    assert "conv" not in WEIGHTS
