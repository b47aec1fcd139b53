"""What a comparison finds wrong, and what it says the cause is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own import step

from minitl import oracle
from minitl.bits import pack, unpack
from minitl.errors import UsageError
from minitl.oracle.case import from_layout, to_layout

Got = dict[str, Any]


def case_of(name: str, layout: str = "nhwc") -> oracle.Case:
    (case,) = oracle.cases(name, layout=layout)
    return case


def verdict(name: str, change: Callable[[Got], object], layout: str = "nhwc") -> str:
    case = case_of(name, layout)
    got: Got = step(case, "float32")
    change(got)
    report = case.compare(got)
    if not report.ok:
        with pytest.raises(oracle.Mismatch) as caught:
            case.check(got)
        assert str(caught.value) == str(report)
    return str(report)


def put(name: str, change: Callable[[Any], Any]) -> Callable[[Got], object]:
    return lambda got: got.update({name: change(got[name])})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("conv-bias", lambda g: g.pop("output"), "output: missing"),
        ("conv-bias", lambda g: g.pop("grad_param.bias"), "a missing gradient"),
        ("conv-bias", put("output", lambda a: a * np.nan), "nan at"),
        ("conv-bias", put("output", lambda a: a + np.inf), "inf at"),
        ("conv-bias", put("output", lambda a: np.where(np.arange(5) < 2, np.nan, a)), "48 nan of 120"),
        (
            "conv-bias",
            put("output", lambda a: np.where(np.arange(5) < 2, [1, np.inf, 1, 1, np.nan], a)),
            "24 inf of 120",
        ),
        ("conv-bias", put("output", lambda a: a[:1]), "expected shape"),
        ("conv-bias", put("output", lambda a: a.reshape(-1)[1:]), "got (119,): 119 float32, expected 120"),
        ("conv-bias", put("output", lambda a: a.byteswap()), "big-endian"),
        ("conv-bias", put("output", lambda a: np.zeros((2, 7, 5, 5), a.dtype)), "stride ignored"),
        (
            "relu-exact",
            put("kept.mask", lambda a: np.concatenate([a[:-1], a[-1:] | 192])),
            "unused high bits of the last bytes",
        ),
        ("conv-bias", lambda g: g.update(output_y=g.pop("output")), "output: missing: it is required; found output_y"),
        ("relu-exact", lambda g: g.update(gx=g.pop("grad_input.x"), y=g["output"]), "it is required; found gx, y"),
        ("conv-bias", put("output", lambda a: a.astype(int)), "expected floats"),
        ("conv-bias", put("output", lambda a: a.astype(complex)), "array of numbers"),
        ("conv-bias", put("output", lambda a: "zero"), "array of numbers"),
        ("conv-bias", put("output", lambda a: a.transpose(0, 3, 1, 2)), "axes are in another order"),
        ("conv-bias", put("grad_param.weight", lambda a: 2 * a), "a gradient doubled"),
        ("conv-bias", put("grad_param.weight", lambda a: -a), "of the wrong sign"),
        ("conv-bias", put("grad_param.weight", lambda a: 0 * a), "a missing gradient: it is zero"),
        ("conv-bias", put("grad_param.weight", lambda a: a / 2), "a mean over the batch"),
        ("conv-bias", put("grad_param.weight", lambda a: a.swapaxes(2, 3)), "transposed"),
        ("conv-bias", lambda g: g.update(outptu=g["output"]), "did you mean output?"),
        ("conv-bias", lambda g: g.update({"param.weight": g["grad_param.weight"]}), "an input was changed"),
        ("conv-frozen", lambda g: g.update({"grad_param.weight": np.zeros(1)}), "for a frozen parameter"),
        ("conv-frozen", lambda g: g.update({"grad_param.weight": None}), "ok"),
        ("frozen_norm-shift", put("buffer_after.running_mean", lambda a: a + 1), "a frozen buffer was changed"),
        ("frozen_norm-shift", lambda g: None, "ok"),
        ("batch_norm-v2", lambda g: g.pop("buffer_after.running_var"), "batch statistics move"),
        ("batch_norm-v2", lambda g: g.update({"grad_param.running_var": np.zeros(5)}), "for a frozen parameter"),
        ("relu-exact", put("kept.mask", lambda a: 255 - a), "kept.mask"),
        ("relu-exact", put("kept.mask", lambda a: a.astype(np.int64)), "expected packed uint8"),
        ("relu-exact", put("kept.mask", lambda a: a.astype(np.float32)), "expected uint8"),
        ("hard_swish-sign", put("grad_input.x", lambda a: a.astype(np.float16)), "ok"),
        ("irb-ft-relu-k5-s2-se", put("output", lambda a: a.astype(np.float16)), "float16 is not served"),
    ],
)
def test_what_is_said(name: str, change: Callable[[Got], object], said: str) -> None:
    assert said in verdict(name, change)


def test_each_of_several_mistakes_is_named() -> None:
    case = case_of("conv-bias")
    got = step(case, "float32")
    got["output"] = got["output"] - case.inputs["param.bias"]
    got["grad_param.bias"] = 0 * got["grad_param.bias"]
    got["grad_param.weight"] = got["grad_param.weight"][..., ::-1, ::-1]
    causes = {line.tensor: line.cause for line in case.compare(got).lines if not line.ok}
    assert "bias left out" in causes["output"]
    assert "a missing gradient: it is zero" in causes["grad_param.bias"]
    assert "filter flipped" in causes["grad_param.weight"]


def test_a_result_that_has_no_bounds_costs_no_other_its_cause() -> None:
    case = case_of("irb-ft-relu-k5-s2-se")
    right, wrong = step(case, "float32"), "grad_param.project.weight"
    got = right | {wrong: 2 * right[wrong], "output": right["output"].astype(np.float16)}
    said = {line.tensor: str(line) for line in case.compare(got).lines if not line.ok}
    assert said.keys() == {wrong, "output"}
    assert "float16 is not served" in said["output"]
    assert "a gradient doubled" in said[wrong]


def test_float32_numbers_in_float64_are_judged_as_float32_and_said_to_be() -> None:
    case = case_of("conv-bias")
    for widened in (lambda a: a.astype(np.float64), lambda a: json.loads(json.dumps(a.tolist()))):
        report = case.compare({name: widened(a) for name, a in step(case, "float32").items()})
        assert report.ok
        assert all("judged as float32" in line.note for line in report.lines)
        assert "judged as float32" in str(report)
    loss = case_of("cross_entropy")
    assert loss.compare(step(loss, "float32") | {"output": float(step(loss, "float32")["output"])}).ok


def test_float64_results_must_be_float64_good() -> None:
    case = case_of("conv-bias")
    right = step(case, "float64")
    assert case.compare(right).ok
    report = case.compare({name: a * (1 + 1e-9) for name, a in right.items()})
    assert not report.ok
    assert all(line.note.startswith("judged as float64; hand in as float32") for line in report.lines if not line.ok)
    assert "float32 somewhere on the way" in str(report)
    line = next(line for line in report.lines if line.tensor == "output")
    assert f"{line.got:.17g} at" in line.problem  # enough digits to see what differs
    assert f"expected {line.expected:.17g}" in line.problem


def test_a_constant_rounded_to_float32_is_named() -> None:
    (case,) = oracle.cases("batch_norm-v3", dtype="float64")
    given, eps = case.inputs, float(np.float32(1e-3))
    x, right = given["input.x"], step(case, "float64")
    inv_std = 1 / np.sqrt(x.var(axis=(0, 1, 2)) + eps)
    y = given["param.weight"] * (x - x.mean(axis=(0, 1, 2))) * inv_std + given["param.bias"]
    assert "[likely: eps rounded to float32]" in str(case.compare(right | {"output": y}))
    before, after = given["buffer.running_mean"], "buffer_after.running_mean"
    moved = before + float(np.float32(0.01)) / 0.01 * (right[after] - before)
    assert "[likely: momentum rounded to float32]" in str(case.compare(right | {after: moved}))


def test_only_some_tensors_are_judged_as_float32_and_named() -> None:
    case = case_of("conv-bias")
    got = step(case, "float32")
    assert f"(all {len(got)})" in str(case.compare({name: a.astype(np.float64) for name, a in got.items()}))
    assert "every value is one (output)" in str(case.compare(got | {"output": got["output"].astype(np.float64)}))


NONE = "none of the usual mistakes"


def test_numbers_that_no_mistake_gives_are_said_to_be_such() -> None:
    name = "grad_param.weight"
    case = case_of("conv-bias")
    got = step(case, "float32")
    (line,) = (x for x in case.compare(got | {name: 2 * got[name][::-1] - 0.1}).lines if x.tensor == name)
    assert (line.cause, NONE in str(line)) == ("", True)
    (line,) = (x for x in case.compare(got | {name: 2 * got[name]}).lines if x.tensor == name)
    assert "a gradient doubled" in line.cause
    assert NONE not in str(line)


REGIONS: dict[str, tuple[tuple[Any, ...], float, str]] = {  # of y or gx (N, H, W, C): places, what is put there
    "channels": ((..., slice(2, 4)), 0, "all {} wrong elements are 0 and lie in channels 2 to 3"),
    "a sample": ((1,), 0, "are 0 and lie in sample 1"),
    "a row of a sample": ((0, 1), 0.5, "are 0.5 and lie in sample 0, row 1"),
    "first and last rows": ((slice(None), [0, -1]), 7, "are 7 and lie in the first or last row"),
    "first and last columns": ((slice(None), slice(None), [0, -1]), 7, "lie in the first or last column"),
    "not numbers": ((..., 1), np.nan, "are nan and lie in channel 1"),
}


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("what", REGIONS)
def test_without_a_cause_it_is_said_where_the_wrong_elements_lie(what: str, layout: str) -> None:
    places, value, said = REGIONS[what]
    case = case_of("conv-bias", layout)
    right = step(case, "float32")
    wrong = from_layout(right["output"], layout)
    wrong[places] = value
    report = case.compare(right | {"output": to_layout(wrong, layout)})
    (line,) = (line for line in report.lines if not line.ok)
    assert not line.cause
    assert said.format(np.size(wrong[places])) in str(line)


def test_of_weights_it_is_said_which_taps_or_filters_are_wrong() -> None:
    for order in ("oihw", "hwio"):
        (case,) = oracle.cases("conv-bias", weights=order)
        right, axes = step(case, "float32"), (0, 1, 2, 3) if order == "oihw" else (3, 2, 0, 1)
        for at, said in (((..., 0, 2), "lie in tap row 0, tap column 2"), ((1,), "lie in filter 1")):
            wrong = right["grad_param.weight"].copy()
            wrong.transpose(axes)[at] *= -3
            assert said in str(case.compare(right | {"grad_param.weight": wrong}))


def test_of_elements_that_lie_anywhere_no_region_is_told() -> None:
    case = case_of("conv-bias")
    right, rng = step(case, "float32"), np.random.default_rng(0)
    for count in (1, 5, 20):
        wrong = right["output"].copy()
        wrong.reshape(-1)[rng.choice(wrong.size, count, replace=False)] += rng.random(count).astype(np.float32) + 1
        text = str(case.compare(right | {"output": wrong}))
        assert NONE in text
        assert "wrong elements" not in text


def test_a_missing_result_is_looked_for_among_names_that_nobody_asked_for() -> None:
    """Names of other results, however near, are not it."""
    case, name = case_of("irb-mobiletl-hard_swish-k5-s2-se"), "grad_param.se.fc1.weight"
    got: Got = step(case, "float32")
    came = got.pop(name)
    for more, said in ((case.inputs, "it is required"), ({"grad.se.fc1.weight": came}, "found grad.se.fc1.weight")):
        (line,) = (line for line in case.compare(got | more).lines if line.tensor == name)
        assert line.problem.endswith(said)


@pytest.mark.parametrize("got", [None, (np.ones(3),), [1.0]])
def test_results_that_are_no_dictionary(got: Any) -> None:
    with pytest.raises(UsageError, match=type(got).__name__):
        case_of("conv-bias").compare(got)


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    for of in (oracle.cases, oracle.entries):
        with pytest.raises(oracle.CaseError, match=r"no built-in case matches 'nosuch\*'"):
            of("nosuch*")


@pytest.mark.parametrize("packed", [True, False])
def test_a_mask_without_its_kink_is_named_in_mask_and_gradient(packed: bool) -> None:
    case = case_of("hard_swish-sign")
    strict = case.inputs["input.x"] > 0
    mask = pack(strict.astype(np.uint8), 1) if packed else strict
    change = {"grad_input.x": case.inputs["grad_output"] * strict, "kept.mask": mask}
    causes = {line.tensor: line.cause for line in case.compare(step(case, "float32") | change).lines if not line.ok}
    assert causes.keys() == change.keys()
    assert all("the mask is x > 0 where x >= 0 is right" in cause for cause in causes.values())
    assert not any("relu where" in cause for cause in causes.values())


def test_what_helps_with_a_dtype() -> None:
    class Graph:
        requires_grad = True

    class Brain:
        dtype = "torch.bfloat16"

    case, masked = case_of("conv-bias"), case_of("relu-exact")
    right, codes = step(case, "float32"), step(masked, "float32")
    assert "tensor.detach()" in str(case.compare(right | {"output": Graph()}))
    assert "bfloat16" in str(case.compare(right | {"output": Brain()}))
    (row,) = masked.kept
    unpacked = unpack(masked.tensors["kept.mask"], 1, tuple(row["shape"])).astype(np.int64)
    assert "the shape is right, the dtype is not" in str(masked.compare(codes | {"kept.mask": unpacked}))


def test_only_forward() -> None:
    case = case_of("batch_norm-v2")
    got = {n: a for n, a in step(case, "float32").items() if n in ("output",) or n.startswith("buffer_after")}
    assert case.compare(got, only="forward").ok
    assert not case.compare(got).ok
    got.pop("buffer_after.running_mean")
    assert not case.compare(got, only="forward").ok
    with pytest.raises(ValueError, match="unknown part"):
        case.compare(got, only="backward")


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("name", ["relu6-codes", "hard_swish-few4", "relu-exact"])
def test_codes_may_come_unpacked(name: str, layout: str) -> None:
    case = case_of(name, layout)
    (row,) = case.kept
    shape = case_of(name).kept[0]["shape"]
    kept = f"kept.{row['tensor']}"
    codes = unpack(case.tensors[kept], row["bits"], tuple(shape))
    laid = codes.transpose(0, 3, 1, 2) if layout == "nchw" else codes
    got: Got = step(case, "float32") | {kept: laid}
    assert case.compare(got).ok
    got[kept] = laid ^ (np.arange(laid.size).reshape(laid.shape) == 0)
    assert not case.compare(got).ok
    got[kept] = laid + np.uint8(1 << row["bits"])
    assert not case.compare(got).ok


def test_anything_dlpack_or_a_sequence_is_taken() -> None:
    class Foreign:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    case = case_of("linear")
    got = step(case, "float32")
    assert case.compare({name: Foreign(a) for name, a in got.items()}).ok
    assert case.compare({name: a.astype(np.float64).tolist() for name, a in step(case, "float64").items()}).ok


def test_inputs_are_copies() -> None:
    case = case_of("linear")
    case.inputs["input.x"][:] = 0
    assert case.inputs["input.x"].any()


def test_a_case_compared_with_all_of_itself_is_right_and_with_a_looser_bound_is_not() -> None:
    case = case_of("relu6-codes")
    everything = {name: tensor.copy() for name, tensor in case.tensors.items()}
    assert case.compare(everything).ok
    everything["tol.f32.output"] += 1
    assert "a bound of the case was changed" in str(case.compare(everything))


def test_naming_a_cause_never_costs_the_verdict() -> None:
    """Whatever is handed in, of any case, comes to a report."""
    rng = np.random.default_rng(0)
    odd: list[Callable[[np.ndarray], Any]] = [
        lambda a: a + 0.01,
        lambda a: np.array(0.5),
        lambda a: a[None],
        lambda a: a.reshape(-1),
        lambda a: a.reshape(-1)[:1],
        lambda a: a[..., None],
        lambda a: np.zeros(0, a.dtype),
        lambda a: np.full(a.shape, np.nan),
        lambda a: a.astype(np.float16),
        lambda a: a.astype(np.int16),
        lambda a: a.astype(bool),
        lambda a: a.astype(">f8"),
        lambda a: rng.standard_normal(a.shape),
        lambda a: np.full(a.shape, 1e300),
        lambda a: 255 - a,
        lambda a: a[..., ::-1] if a.ndim else a,
        lambda a: "text",
        lambda a: [[1], [1, 2]],
        lambda a: object(),
    ]
    names = (
        "cross_entropy*",
        "relu6-codes",
        "linear-one-sample",
        "squeeze_excite-one*",
        "conv-k3-s1",
    )
    for case in (case for pattern in names for case in oracle.cases(pattern)):
        right = {name: tensor.copy() for name, tensor in case.expected.items()}
        for name in right:
            for change in odd:
                assert case.compare(right | {name: change(right[name])}).case == case.name


@pytest.mark.parametrize("attrs", [{}, {"batch": "x"}, {"batch": -1, "height": None, "width": 0}, {"kernel": 10**9}])
def test_attributes_that_make_no_sense_cost_the_cause_alone(attrs: dict[str, Any]) -> None:
    for case in (case_of("conv-bias"), case_of("irb-ft-relu6-k7-s2"), case_of("cross_entropy")):
        right = step(case, "float32")
        case.attrs = attrs if not attrs else {**case.attrs, **attrs}
        report = case.compare(right | {"grad_input.x": right["grad_input.x"] + np.float32(0.01)})
        assert [line.tensor for line in report.lines if not line.ok] == ["grad_input.x"]
