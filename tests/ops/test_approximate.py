"""Convolutions that keep codes, halves or sums of their input: what is kept, what comes of it, where it is exact."""

from __future__ import annotations

import numpy as np
import pytest
from cases import NAMES, Dims, Spec, make, run
from checks import check_contract, check_kept, check_needed_for, check_one_by_one, same_bytes

from minitl import methods, networks, ops
from minitl.accounting import measure, predict
from minitl.arrays import Array
from minitl.errors import MinitlError
from minitl.ops.rules import quantised, razor
from minitl.ops.rules.approximate import CODED, ENCODINGS, RULES
from minitl.saved import Saved

OPS = ("conv", "depthwise_conv", "pointwise_conv", "linear")
PAIRS = [(name, rule) for name in OPS for rule in getattr(ops, name).rules if rule in RULES]
both = pytest.mark.parametrize(("name", "rule"), PAIRS)
RNG = np.random.default_rng(0)


def spec(name: str, rule: str) -> Spec:
    known = NAMES[name]
    if rule == "channels":
        return Spec(known.op, known.shapes, lambda d: {**known.attrs(d), "channels": (0, d.c - 1)[: d.c]}, rule=rule)
    return Spec(known.op, known.shapes, known.attrs, rule=rule)


@both
@pytest.mark.parametrize("dims", [Dims(h=9, w=6, c=7), Dims(n=3, h=5, w=8, stride=2, bias=False, flag=True)])
def test_contract_and_kept_buffers(name: str, rule: str, dims: Dims) -> None:
    for dtype in ("float32", "float64"):
        case = make(spec(name, rule), dims, dtype=dtype)
        check_kept(case)
        check_needed_for(case)
        check_one_by_one(case)
        y, saved = case.op.forward(*case.arrays, **case.keywords, rule=rule)
        exact = case.op.forward(*case.arrays, **case.keywords)[0]
        assert y.tobytes() == exact.tobytes(), "the forward is the exact one"
        assert saved.nbytes < case.arrays[0].nbytes or case.arrays[0].size < 1024
    if rule not in CODED:
        check_contract(case)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("rule", [rule for rule in CODED if rule != "channels"])
def test_gradients_are_the_exact_ones_of_what_was_kept(name: str, rule: str) -> None:
    case = make(spec(name, rule), Dims(h=9, w=6, c=7))
    _, saved = case.op.forward(*case.arrays, **case.keywords, rule=rule)
    decoded = ENCODINGS[rule].restore(saved, np.dtype("float64"))
    got = run(case).gradients
    plain = run(make(spec(name, ""), Dims(h=9, w=6, c=7))).gradients
    _, of_decoded = case.op.forward(decoded, *case.params, **case.keywords)
    expected = case.op.backward(of_decoded, case.gy, **case.keywords, params=case.params)
    assert same_bytes(got[1], expected[1])
    assert same_bytes(got[0], plain[0])
    assert same_bytes(got[2], plain[2])


# Codes


def decoded(x: Array, bits: int, seed: int) -> Array:
    saved = Saved()
    quantised.keep(saved, x, (seed,), bits)
    return quantised.restore(saved, x.dtype)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_codes_are_unbiased_and_within_a_step(bits: int) -> None:
    x = RNG.standard_normal((2, 5, 5, 11)) * 3 + 1
    draws = np.array([decoded(x, bits, seed) for seed in range(1500)])
    step = np.ptp(x) / (2**bits - 1) * 1.02  # a group's own range is no larger; 2 % for bfloat16
    assert abs(draws - x).max() <= step
    assert abs(draws.mean(axis=0) - x).max() <= 5 * step / 2 / np.sqrt(len(draws))
    assert decoded(x, bits, 1).tobytes() == draws[1].tobytes() != draws[2].tobytes()


def test_bytes_of_a_group_are_actnns() -> None:
    for bits, count in ((8, 260), (4, 132), (2, 68)):
        saved = Saved()
        quantised.keep(saved, np.ones((1, 256)), (0,), bits)
        assert saved.nbytes == count
    assert pytest.approx(15.06, abs=0.005) == 1024 / 68
    saved = Saved()
    quantised.keep(saved, np.ones((8, 7, 7, 96), np.float32), (0,), 2)  # 4,704 values, padded to 19 groups
    assert saved.nbytes == 8 * 19 * 68


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1 / 3, -1e-30, 3e30])
def test_a_constant_array_comes_back_within_bfloat16(value: float) -> None:
    x = np.full((2, 512), value)
    assert abs(decoded(x, 2, 0) - x).max() <= abs(value) / 64


# Halves


def test_exactly_half_is_kept_also_of_zeros() -> None:
    x = np.maximum(RNG.standard_normal((4, 49 * 32)) - 0.25, 0)
    assert (x == 0).mean() > 0.55, "Back Razor's own threshold, 0, would keep everything"
    saved = Saved()
    razor.keep(saved, x, ())
    assert saved["values"].shape == (4, 49 * 16)
    half = razor.restore(saved, np.dtype("float64"))
    assert ((half == x) | (half == 0)).all()
    assert np.array_equal(half, x), "of these the larger half holds all that is not 0"
    y = RNG.standard_normal((3, 7))
    razor.keep(saved, y, ())
    for row, kept in zip(y, razor.restore(saved, np.dtype("float64")), strict=True):
        assert set(np.flatnonzero(kept)) == set(np.argsort(-abs(row))[:4])


def test_ties_go_by_index() -> None:
    saved = Saved()
    razor.keep(saved, np.array([[1.0, -1.0, 1.0, 1.0, -1.0]]), ())
    assert razor.restore(saved, np.dtype("float64")).tolist() == [[1, -1, 1, 0, 0]]


# Filters


@pytest.mark.parametrize("r", [2, 4, 7])
@pytest.mark.parametrize("name", ["conv", "depthwise_conv", "pointwise_conv"])
def test_filtered_gradients_by_their_definition(name: str, r: int) -> None:
    dims = Dims(h=9, w=6, c=4, stride=1 if name == "pointwise_conv" else 2)
    case = make(spec(name, f"filter{r}"), dims)
    x, weight = case.arrays[:2]
    s = 1 if name == "pointwise_conv" else 2
    height, width = case.gy.shape[1:3]
    expected_gx, expected_gw = np.zeros_like(x), np.zeros_like(weight)
    rows, columns = (((-(-side // r) * r - side) // 2) for side in (height, width))  # what is cut off before
    taps = weight.sum(axis=(2, 3))
    for i in range(-rows, height, r):
        for j in range(-columns, width, r):
            patch = case.gy[:, max(i, 0) : i + r, max(j, 0) : j + r]
            lower = x.shape[1] if i + r >= height else (i + r) * s
            right = x.shape[2] if j + r >= width else (j + r) * s
            below = (slice(None), slice(max(i, 0) * s, lower), slice(max(j, 0) * s, right))
            mean, total = patch.mean(axis=(1, 2)) / s**2, x[below].sum(axis=(1, 2))
            if name == "depthwise_conv":
                expected_gx[below] = (mean * taps[:, 0])[:, None, None]
                expected_gw += (mean * total).sum(axis=0)[:, None, None, None]
            else:
                expected_gx[below] = (mean @ taps)[:, None, None]
                expected_gw += (mean.T @ total)[:, :, None, None]
    gx, gw, gb = run(case).gradients
    np.testing.assert_allclose(gx, expected_gx, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gw, expected_gw, rtol=1e-12, atol=1e-12)
    assert same_bytes(gb, run(make(spec(name, ""), dims)).gradients[2])


def test_a_pointwise_convolution_with_gy_constant_on_patches_is_exact() -> None:
    x, weight = RNG.standard_normal((2, 8, 8, 5)), RNG.standard_normal((3, 5, 1, 1))
    gy = RNG.standard_normal((2, 2, 2, 3)).repeat(4, axis=1).repeat(4, axis=2)
    found = []
    for rule in ("exact", "filter4"):
        _, saved = ops.pointwise_conv.forward(x, weight, needs=(True, True), rule=rule)
        found.append(ops.pointwise_conv.backward(saved, gy, needs=(True, True), params=(weight,)))
    for exact, filtered in zip(*found, strict=True):
        np.testing.assert_allclose(filtered, exact, rtol=1e-12, atol=1e-12)


def test_the_ledger_gives_the_papers_bytes() -> None:
    """MobileNetV2's last two convolutions, batch 1, 224: 80.00 KiB with patches of 2 (CVPR 2023, Table 2)."""
    network = networks.mobilenet_v2()
    methods.get("ft-blocks", 1, rules={"project": "filter2", "head_conv": "filter2"}).apply(network)
    rows = [row for row in predict(network, batch=1, resolution=224).rows if row.tensor == "x_sums"]
    assert sum(row.bytes for row in rows) == 80 * 1024
    assert {row.role for row in rows} == {"project", "head_conv"}
    assert not network.exact


# In a network


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "channels"])
def test_predicted_is_held_is_traced(rule: str) -> None:
    rules = dict.fromkeys(("expand", "depthwise", "project", "head_conv"), rule)
    network = methods.get("ft-blocks", 3, rules=rules).apply(networks.digits_irb())
    found, measured = predict(network, batch=2, resolution=24), measure(network, batch=2, resolution=24)
    assert found.kept_bytes == measured.held_bytes == measured.traced_bytes
    exact = methods.get("ft-blocks", 3).apply(networks.digits_irb())
    assert found.kept_bytes < predict(exact, batch=2, resolution=24).kept_bytes


def test_back_razor_trains_all_but_norms_and_keeps_half() -> None:
    network = methods.get("back-razor").apply(networks.digits_irb())
    found, measured = predict(network, batch=2, resolution=24), measure(network, batch=2, resolution=24)
    assert found.kept_bytes == measured.held_bytes == measured.traced_bytes
    assert {row.tensor for row in found.rows if row.rule == "razor"} == {"mask", "values"}
    assert not any("norm" in name for name in network.trained_parameters())


def test_a_rule_that_needs_the_input_itself_is_refused() -> None:
    with pytest.raises(MinitlError, match=r"unknown backward rule 'filter3' .*; choose one of: exact, quantised8"):
        methods.get("ft-all", rules={"expand": "filter3"}).apply(networks.digits_irb())
    network = methods.get("mobiletl-exact", 2, rules={"project": "razor"}).apply(networks.digits_irb())
    folded = any(layer.plan.rule == "folded" for layer in network.layers())
    if folded:
        with pytest.raises(MinitlError, match="rule razor cannot encode an input"):
            predict(network, batch=2, resolution=24)


@pytest.mark.parametrize("name", OPS)
def test_chosen_channels_have_exact_gradients_and_others_none(name: str) -> None:
    dims = Dims(h=9, w=6, c=7)
    got, exact = run(make(spec(name, "channels"), dims)).gradients, run(make(spec(name, ""), dims)).gradients
    axis, chosen = (0 if name == "depthwise_conv" else 1), [0, 6]
    others = [c for c in range(7) if c not in chosen]
    assert same_bytes(got[0], exact[0])
    np.testing.assert_allclose(got[1].take(chosen, axis), exact[1].take(chosen, axis), rtol=1e-13)
    assert not got[1].take(others, axis).any()


def test_sparse_update_keeps_a_quarter_of_the_channels() -> None:
    network = methods.get("sparse-update", 3).apply(networks.digits_irb())
    found, measured = predict(network, batch=2, resolution=24), measure(network, batch=2, resolution=24)
    assert found.kept_bytes == measured.held_bytes == measured.traced_bytes
    rows = [row for row in found.rows if row.rule == "channels"]
    assert len(rows) == 3
    inputs = [block.spec.in_channels for block in network.blocks[-3:]]
    assert [row.shape[3] for row in rows] == [count // 4 for count in inputs]
    with pytest.raises(MinitlError, match="expected channels in rising order, from 0 to 4, got"):
        ops.pointwise_conv.cost(
            [(1, 2, 2, 5), (3, 5, 1, 1)], "float32", attrs={"channels": (3, 5)}, needs=(True, True), rule="channels"
        )


def test_a_frozen_convolution_takes_no_rule() -> None:
    """It keeps nothing; with a rule it would no longer run folded with its norm."""
    network = methods.get("ft-blocks", 1, rules={"expand": "razor"}).apply(networks.digits_irb())
    told = [bool(layer.plan.rule) for layer in network.layers() if layer.role == "expand"]
    assert told == [False] * (len(told) - 1) + [True]
