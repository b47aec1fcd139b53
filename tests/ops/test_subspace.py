"""Inputs kept as a core in bases: by definition, exact at full rank, near the best of that rank; what lives on."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from cases import Dims, Spec, make
from checks import check_contract, check_kept, check_needed_for, check_one_by_one, same_bytes

import minitl
from minitl import methods, networks, ops
from minitl.accounting import measure, predict
from minitl.arrays import Array, Shape
from minitl.errors import MinitlError
from minitl.layers import Conv, LayerPlan
from minitl.methods import calibrate
from minitl.methods.calibration import _give
from minitl.ops.rules.subspace import FIXED, FOLLOWS, IN_SUBSPACE, follow, orthonormal, shapes_of
from minitl.records import Var
from minitl.tape import Tape

RNG = np.random.default_rng(0)
each = pytest.mark.parametrize("name", IN_SUBSPACE)
WEIGHTS = {"conv": (4, 7, 3, 3), "depthwise_conv": (7, 1, 3, 3), "pointwise_conv": (4, 7, 1, 1)}
X = (2, 9, 6, 7)


def spec(name: str, rule: str, x: Shape = X) -> Spec:
    bases = shapes_of(x)
    return Spec(IN_SUBSPACE[name], lambda d: (x, WEIGHTS[name], *bases), rule=rule)


def bases_of(x: Shape, ranks: tuple[int, ...]) -> list[Array]:
    return [orthonormal(RNG.standard_normal((d, k))).T for k, d in shapes_of(x, ranks)]


def restored(x: Array, bases: list[Array]) -> Array:
    h, w, c = (b.T @ b for b in bases)
    found: Array = np.einsum("nhwc,hi,wj,ck->nijk", x, h, w, c, optimize=True)
    return found


@each
@pytest.mark.parametrize("rule", [FIXED, FOLLOWS])
def test_contract_and_kept_buffers(name: str, rule: str) -> None:
    for dtype in ("float32", "float64"):
        case = make(spec(name, rule), Dims(c=7), dtype=dtype, needs=(True, True, False, False, False))
        check_contract(case)
        check_kept(case)
        check_needed_for(case)
        if rule == FIXED:
            check_one_by_one(case)


@each
def test_gradients_are_the_exact_ones_of_what_is_restored(name: str) -> None:
    op, exact, needs = IN_SUBSPACE[name], getattr(ops, name), (True, True)
    x, weight, bases = RNG.standard_normal(X), RNG.standard_normal(WEIGHTS[name]), bases_of(X, (4, 3, 2))
    y, saved = op.forward(x, weight, *bases, needs=(*needs, False, False, False), rule=FIXED)
    gy = RNG.standard_normal(y.shape)
    got = op.backward(saved, gy, needs=(*needs, False, False, False), params=(weight, *bases))
    for what, number in ((x, 0), (restored(x, bases), 1)):
        plain, kept = exact.forward(what, weight, needs=needs)
        expected = exact.backward(kept, gy, needs=needs, params=(weight,))[number]
        np.testing.assert_allclose(got[number], expected, rtol=1e-11, atol=1e-11)
        assert number or same_bytes(y, plain)
    assert saved["core"].shape == (2, 4, 3, 2)
    assert not np.allclose(got[1], exact.backward(exact.forward(x, weight, needs=needs)[1], gy, needs=needs,
                                                  params=(weight,))[1])  # fmt: skip


@each
@pytest.mark.parametrize("rule", [FIXED, FOLLOWS])
def test_full_rank_is_exact(name: str, rule: str) -> None:
    op, exact, needs = IN_SUBSPACE[name], getattr(ops, name), (True, True)
    x, weight, bases = RNG.standard_normal(X), RNG.standard_normal(WEIGHTS[name]), bases_of(X, X[1:])
    y, saved = op.forward(x, weight, *bases, needs=(*needs, False, False, False), rule=rule)
    gy = RNG.standard_normal(y.shape)
    _, got, *_ = op.backward(saved, gy, needs=(*needs, False, False, False), params=(weight, *bases))
    _, expected = exact.backward(exact.forward(x, weight, needs=needs)[1], gy, needs=needs, params=(weight,))
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def activations(n: int = 4) -> Array:
    """Smooth maps of correlated channels, after a ReLU: with energy in few directions, as real ones."""
    maps = np.cumsum(np.cumsum(RNG.standard_normal((n, 14, 14, 12)), axis=1), axis=2)
    return np.maximum(maps @ RNG.standard_normal((12, 48)), 0).astype(np.float32)


def test_following_bases_come_within_a_hundredth_of_the_best_of_their_rank() -> None:
    """The best bases axis by axis are those of the SVD of each unfolding (HOSVD); ASI begins at random."""
    x, ranks = activations().astype(np.float64), (5, 5, 6)
    unfolded = [np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for axis in (1, 2, 3)]
    best = [np.linalg.svd(a, full_matrices=False)[0][:, :k].T for a, k in zip(unfolded, ranks, strict=True)]
    least = np.linalg.norm(x - restored(x, best))
    bases, errors = bases_of(x.shape, ranks), []
    for _ in range(7):
        errors.append(np.linalg.norm(x - restored(x, bases)) / least)
        for axis, basis in enumerate(bases, start=1):
            follow(x, axis, basis)
    assert errors[0] > 2
    assert errors[1] < 1.5
    assert 0.99 < errors[6] < 1.01, errors  # HOSVD is the best axis by axis, not of all three together


def test_orthonormal_whatever_comes() -> None:
    for columns in (RNG.standard_normal((9, 4)), np.zeros((5, 5)), np.ones((6, 3)), RNG.standard_normal((3, 3)) * 1e30):
        q = orthonormal(columns)
        np.testing.assert_allclose(q.T @ q, np.eye(columns.shape[1]), atol=1e-14)
    columns = RNG.standard_normal((9, 4))
    q = orthonormal(columns)
    np.testing.assert_allclose(q @ (q.T @ columns), columns, atol=1e-14)


# In a network


@pytest.mark.parametrize("method", ["subspace", "subspace-fixed"])
def test_predicted_is_held_is_traced_and_state_has_a_line_of_its_own(method: str) -> None:
    network = methods.get(method, 2).apply(networks.digits_irb())
    found, measured = predict(network, batch=2, resolution=24), measure(network, batch=2, resolution=24)
    assert found.kept_bytes == measured.held_bytes == measured.traced_bytes
    assert 0 <= measured.predicted_peak_bytes - measured.traced_peak_bytes <= 16 << 10
    convs = [layer for layer in network.layers() if isinstance(layer, Conv) and layer.plan.rule]
    assert len(convs) == 7
    assert not any(layer.bases for layer in convs), "predicting and measuring leave no trace"
    images = RNG.standard_normal((2, 24, 24, 3), np.float32)
    network(Tape(), images)
    state = sum(p.value.nbytes for layer in convs for p in layer.bases)
    assert found.totals.state_bytes == state > 0
    t = found.totals
    frozen = sum(p.nbytes for p in network.parameters() if not (p.trained or p.statistic))
    assert t.frozen_parameter_bytes == frozen
    parts = (t.kept_bytes, t.trained_parameter_bytes, frozen, t.buffer_bytes, state, t.gradient_bytes)
    assert t.total_bytes == sum(parts)
    assert re.search(rf"state of backward rules +{state:,} ", str(found))


def test_bases_that_moved_since_are_told() -> None:
    """A second forward pass moves the bases that the first one's backward would read."""
    network = methods.get("subspace", 1).apply(networks.digits_irb())
    images, labels = RNG.standard_normal((2, 24, 24, 3), np.float32), np.arange(2)
    tape = Tape()
    loss = network.loss(tape, network(tape, images), labels)
    network(Tape(), images[::-1].copy())
    with pytest.raises(MinitlError, match=r"basis_.* changed between the forward pass and backward"):
        tape.backward(loss)


def test_bases_follow_in_training_and_only_there() -> None:
    network = methods.get("subspace", 1).apply(networks.digits_irb())
    images = RNG.standard_normal((2, 24, 24, 3), np.float32)
    network.predict(images)
    conv = network.blocks[-1].project.conv
    assert conv.carried() == {}
    network(Tape(), images)
    before = {name: array.copy() for name, array in conv.carried().items()}
    network.predict(images)
    assert all(np.array_equal(array, before[name]) for name, array in conv.carried().items())
    network(Tape(), images)
    assert not any(np.array_equal(array, before[name]) for name, array in conv.carried().items())
    with pytest.raises(MinitlError, match="finite"), np.errstate(all="ignore"):
        network(Tape(), np.full_like(images, 1e38))
    assert all(np.isfinite(array).all() for array in conv.carried().values())
    fixed = methods.get("subspace-fixed", 1).apply(network)
    fixed(Tape(), images)
    before = {name: array.copy() for name, array in conv.carried().items()}
    fixed(Tape(), images[::-1].copy())
    assert all(np.array_equal(array, before[name]) for name, array in conv.carried().items())


def gradient_error(network: networks.Network, images: Array, labels: Array, exact: dict[str, Array]) -> float:
    tape = Tape()
    got = tape.backward(network.loss(tape, network(tape, images), labels))
    wrong = sum(((got[name] - exact[name]) ** 2).sum() for name in exact)
    return float(np.sqrt(wrong / sum((g**2).sum() for g in exact.values())))


def test_a_calibration_pass_chooses_ranks_by_energy_and_changes_nothing_else() -> None:
    network = methods.get("subspace-fixed", 2).apply(networks.digits_irb(dtype="float64"))
    images, labels = RNG.standard_normal((6, 24, 24, 3)), np.arange(6) % 5
    before = {name: array.tobytes() for name, array in network.state_dict().items()}
    plain = methods.get("subspace-fixed", 2, rules=dict.fromkeys(("expand", "depthwise", "project", "head_conv"),
                                                                 "exact"))  # fmt: skip
    tape, twin = Tape(), plain.apply(networks.digits_irb(dtype="float64"))
    exact = tape.backward(twin.loss(tape, twin(tape, images), labels))
    errors, kept = [], []
    for energy in (0.7, 0.95, 1.0):
        ranks = calibrate(network, [images[:3], images[3:]], energy=energy)
        assert {name: array.tobytes() for name, array in network.state_dict().items()} == before
        errors.append(gradient_error(network, images, labels, exact))
        kept.append(predict(network, batch=6, resolution=24).kept_bytes)
        path = network.blocks[-1].project.conv.path
        assert network.blocks[-1].project.conv.bases[2].value.shape[0] == ranks[path][2]
    assert errors[0] > errors[1] > 1e3 * errors[2]
    assert errors[2] < 1e-12
    assert kept[0] < kept[1] < kept[2]
    with pytest.raises(MinitlError, match=r"expected an energy above 0, at most 1, got 1\.5"):
        calibrate(network, [images], energy=1.5)
    with pytest.raises(MinitlError, match="no layer's rule has bases; apply `subspace-fixed` first"):
        calibrate(methods.get("ft-all").apply(network), [images])
    with pytest.raises(MinitlError, match="no batch of images"):
        calibrate(methods.get("subspace").apply(network), [])


def test_blocks_that_run_again_are_calibrated_as_others() -> None:
    images = RNG.standard_normal((3, 24, 24, 3), np.float32)
    kept, again = (
        methods.get("subspace-fixed", 2, checkpoint=checkpoint).apply(networks.digits_irb())
        for checkpoint in (False, True)
    )
    assert calibrate(kept, [images], energy=0.9) == calibrate(again, [images], energy=0.9)
    for one, other in zip(kept.layers(), again.layers(), strict=True):
        assert all(np.array_equal(array, other.carried()[name]) for name, array in one.carried().items())
    assert again.checkpoint


def test_a_refused_calibration_leaves_the_bases_of_the_one_before() -> None:
    network = methods.get("subspace-fixed", 2).apply(networks.digits_irb())
    images = RNG.standard_normal((3, 24, 24, 3), np.float32)
    ranks, convs = calibrate(network, [images]), [block.project.conv for block in network.blocks[-2:]]
    before = [(conv.plan, {name: a.tobytes() for name, a in conv.carried().items()}) for conv in convs]
    assert all(carried for _, carried in before)
    for batches, words in (
        ([images, images[:, :16]], r"features\..*expected batches of one size, here maps \(.*, got \("),
        ([images[:1] * np.nan], "finite"),
        ([], "no batch of images"),
    ):
        with pytest.raises(MinitlError, match=words):
            calibrate(network, batches, energy=0.5)
        assert [(c.plan, {name: a.tobytes() for name, a in c.carried().items()}) for c in convs] == before
    assert calibrate(network, [images]) == ranks


def test_what_is_restored_loses_no_more_than_the_energy_left_out() -> None:
    conv = Conv("here", "project", 48, 8, rng=RNG, dtype="float64")
    x = activations().astype(np.float64)
    for energy in (0.7, 0.9, 0.99):
        covariances = [np.moveaxis(x, a, 0).reshape(x.shape[a], -1) for a in (1, 2, 3)]
        conv.apply(LayerPlan(train=frozenset({"weight"}), rule=FIXED))
        _give(conv, [a @ a.T for a in covariances], energy)
        lost = np.linalg.norm(x - restored(x, [p.value for p in conv.bases])) ** 2 / np.linalg.norm(x) ** 2
        assert lost <= 3 * (1 - energy)
        assert lost > 0


def test_ranks_that_do_not_fit_name_the_layer_and_what_fits() -> None:
    conv = Conv("features.3.conv", "project", 48, 8, rng=RNG, dtype="float32")
    conv.apply(LayerPlan(train=frozenset({"weight"}), rule=FOLLOWS, ranks=(5, 15, 6)))
    with pytest.raises(MinitlError, match=r"features\.3\.conv: expected ranks .* from \(1, 1, 1\) to \(14, 14, 48\)"):
        conv(Tape(), Var(activations()))
    conv.apply(replace(conv.plan, ranks=(5, 14, 6)))
    assert conv(Tape(), Var(activations())).shape == (4, 14, 14, 8)
    with pytest.raises(MinitlError, match="unknown backward rule 'subspace'"):
        minitl.methods.get("ft-all", rules={"se_fc1": "subspace"}).apply(networks.mobilenet_v3_small(width=0.1))
