"""What holds for every op and rule: dtypes, layouts, what is written, what is kept and what that is for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases import LAYOUTS, NAMES, cases, run
from checks import check_contract, check_float32, check_kept, check_needed_for, check_one_by_one, check_same
from hypothesis import given
from hypothesis import strategies as st

from minitl import ops
from minitl.ops.rules.approximate import RULES

DTYPES = ("float32", "float64")
OPS = [op for op in vars(ops).values() if isinstance(op, ops.Op)]
ELSEWHERE = {("standardised_conv", "exact")}  # no bound on rounding holds for all its weights
ELSEWHERE |= {
    (op.name, rule) for op in OPS for rule in op.rules if rule in (*RULES, *ops.conv_int.rules)
}  # test_approximate
everywhere = pytest.mark.parametrize("name", NAMES)


def test_every_op_and_rule_has_cases() -> None:
    covered = {(spec.op.name, spec.rule or spec.op.rules[0]) for spec in NAMES.values()} | ELSEWHERE
    assert covered == {(op.name, rule) for op in OPS for rule in op.rules}
    assert len(OPS) > 10


@everywhere
@given(data=st.data())
def test_dtypes_shapes_and_nothing_written(name: str, data: st.DataObject) -> None:
    check_contract(data.draw(cases(NAMES[name], DTYPES, LAYOUTS)))


@everywhere
@given(data=st.data())
def test_strides_of_the_inputs_change_no_bit(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(NAMES[name], DTYPES, LAYOUTS))
    dense = replace(case, arrays=tuple(a.copy("C") for a in case.arrays), gy=case.gy.copy("C"))
    check_same(run(case), run(dense))


@everywhere
@given(data=st.data())
def test_a_gradient_does_not_depend_on_which_others_are_wanted(name: str, data: st.DataObject) -> None:
    check_one_by_one(data.draw(cases(NAMES[name], DTYPES)))


@everywhere
@given(data=st.data())
def test_float32_is_float64_within_its_rounding(name: str, data: st.DataObject) -> None:
    check_float32(data.draw(cases(NAMES[name])))


@everywhere
@given(data=st.data())
def test_kept_buffers_are_those_foreseen(name: str, data: st.DataObject) -> None:
    check_kept(data.draw(cases(NAMES[name], DTYPES, LAYOUTS)))


@everywhere
@given(data=st.data())
def test_kept_buffers_are_needed_for_what_they_say(name: str, data: st.DataObject) -> None:
    check_needed_for(data.draw(cases(NAMES[name])))
