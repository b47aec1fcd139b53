"""What each method trains, written out by role; what is frozen does not change by a bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from models import batch, settle, stir, trained

import minitl
from minitl.cli import main
from minitl.errors import MinitlError, RuleError, UnknownNameError, UsageError, ValueRangeError
from minitl.layers import FROZEN, Activation, Layer, LayerPlan, Norm
from minitl.networks import Network
from minitl.tape import Tape

WEIGHT, SHIFT, BOTH = {"weight"}, {"bias"}, {"weight", "bias"}
NORMS = ("stem_norm", "expand_norm", "depthwise_norm", "project_norm", "head_norm")

# All parameters there are, by role. Convolutions have no bias, but those of squeeze-and-excite.
EVERYTHING = {
    "stem": WEIGHT, "expand": WEIGHT, "depthwise": WEIGHT, "project": WEIGHT, "head_conv": WEIGHT,
    "se_fc1": BOTH, "se_fc2": BOTH, "classifier": BOTH, **dict.fromkeys(NORMS, BOTH),
}  # fmt: skip
BIASES = {"se_fc1": SHIFT, "se_fc2": SHIFT, "classifier": SHIFT, **dict.fromkeys(NORMS, SHIFT)}
MOBILETL = {**EVERYTHING, "expand_norm": SHIFT, "depthwise_norm": SHIFT}

# method: what trains in the tuned part (by role), whether there is a frozen part, roles with batch statistics
TABLE = {
    "ft-all": (EVERYTHING, False, NORMS),
    "ft-last": ({}, False, ()),
    "ft-bias": (BIASES, False, ()),
    "ft-norm": (dict.fromkeys(NORMS, BOTH), False, NORMS),
    "ft-blocks": (EVERYTHING, True, NORMS),
    **dict.fromkeys(
        ("mobiletl", "mobiletl-exact", "mobiletl-recompute"),
        (MOBILETL, True, ("project_norm", "head_norm", "stem_norm")),
    ),
}
NETS = {"mobilenet_v3_small": 11, "mobilenet_v3_large": 15, "mobilenet_v2": 17, "proxyless_mobile": 20, "digits_irb": 7}
CHOICES = [
    (name, method, k)
    for name, count in NETS.items()
    for method, (_, partly, _) in TABLE.items()
    for k in ((1, 3, count) if partly else (None,))
]


def tuned_part(net: Network, blocks: int | None) -> set[str]:
    """Paths of the layers that stand in the top `blocks` blocks and above, by the number in their names."""
    first = 0 if blocks is None else len(net.blocks) + 1 - blocks
    numbers = {layer.path: layer.path.split(".") for layer in net.layers()}
    return {path for path, parts in numbers.items() if parts[0] != "features" or int(parts[1]) >= first}


def expected(net: Network, method: str, blocks: int | None) -> set[str]:
    roles, _, _ = TABLE[method]
    last = f"classifier.{3 if 'v3' in net.name else 1}"
    part = tuned_part(net, blocks)
    names = {f"{x.path}.{p}" for x in net.layers() if x.path in part for p in roles.get(x.role, ())}
    return names | {f"{last}.weight", f"{last}.bias"}


@pytest.mark.parametrize(("name", "method", "blocks"), CHOICES)
def test_what_is_trained(name: str, method: str, blocks: int | None) -> None:
    net = trained(minitl.networks.get(name, width=0.1), method, blocks)
    assert set(net.trained_parameters()) == expected(net, method, blocks)
    part = tuned_part(net, blocks)
    for layer in net.layers():
        if isinstance(layer, Norm):
            batch_statistics = layer.role in TABLE[method][2] and layer.path in part
            assert layer.plan.statistics == ("batch" if batch_statistics else "frozen"), layer.path


SMALL = [
    ("mobilenet_v3_small", {"width": 0.25}), ("mobilenet_v2", {"width": 0.1}), ("digits_irb", {"dropout": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize("method", TABLE)
@pytest.mark.parametrize(("name", "options"), SMALL, ids=[name for name, _ in SMALL])
def test_a_step_gives_these_gradients_and_changes_nothing_else(name: str, options: Any, method: str) -> None:
    """Parameters stay as they are; statistics and counters change in norms with batch statistics, and only there."""
    blocks = 2 if TABLE[method][1] else None
    net = trained(stir(minitl.networks.get(name, num_classes=10, **options)), method, blocks)
    images, labels = batch(net, n=2, resolution=33)
    before = net.state_dict()
    tape = Tape()
    gradients = tape.backward(net.loss(tape, net(tape, images), labels))
    assert set(gradients) == expected(net, method, blocks)
    for parameter, gradient in gradients.items():
        assert gradient.shape == before[parameter].shape
        assert gradient.dtype == net.dtype
        assert gradient.any(), f"{parameter} has no gradient but zeros"
    after, part = net.state_dict(), tuned_part(net, blocks)
    with_batch = {x.path for x in net.layers() if x.role in TABLE[method][2] and x.path in part}
    for key, value in before.items():
        path, _, kind = key.rpartition(".")
        moves = path in with_batch and kind in ("running_mean", "running_var", "num_batches_tracked")
        assert (after[key].tobytes() != value.tobytes()) == moves, key
        if kind == "num_batches_tracked":
            assert after[key] - value == moves


def test_batches_are_counted() -> None:
    net = trained(minitl.networks.digits_irb(), "ft-norm")
    images, _ = batch(net, resolution=16)
    for _ in range(3):
        net(Tape(), images)
    net.predict(images)
    assert net.state_dict()["features.0.1.num_batches_tracked"] == 3
    again = minitl.networks.digits_irb()
    again.load_state_dict(net.state_dict())
    assert again.state_dict()["features.0.1.num_batches_tracked"] == 3


def test_running_statistics_follow_the_batch() -> None:
    """The first norm's, by hand: momentum 0.1, the unbiased variance."""
    net = trained(minitl.networks.digits_irb(dtype="float64"), "ft-all")
    images, _ = batch(net, n=3, resolution=9)
    conv, norm = net.stem.conv, net.stem.norm
    x = conv(Tape(training=False), Tape().images(images, 3, "float64")).value.reshape(-1, 16)
    net(Tape(), images)
    mean, var = (norm.parameters[n].value for n in ("running_mean", "running_var"))
    assert np.allclose(mean, 0.1 * x.mean(axis=0), rtol=1e-12, atol=1e-14)
    assert np.allclose(var, 0.9 + 0.1 * x.var(axis=0, ddof=1), rtol=1e-12)


def test_evaluation_uses_running_statistics() -> None:
    """So the images of a batch do not touch each other, and nothing is counted or moved."""
    net = trained(stir(minitl.networks.mobilenet_v3_small(num_classes=5, width=0.25, dropout=0.5)), "ft-all")
    images, _ = batch(net, n=5)
    before = {key: value.tobytes() for key, value in net.state_dict().items()}
    whole = net.predict(images)
    assert whole.shape == (5, 5)
    assert net.predict(images, batch_size=2).shape == (5, 5)
    alone = np.concatenate([net.predict(images[i : i + 1]) for i in range(5)])
    # BLAS may round a row differently by the number of rows beside it: some 60 layers, 2^-24 each, ample
    assert np.abs(whole - alone).max() <= 1e-4 * np.abs(whole).max()
    assert {key: value.tobytes() for key, value in net.state_dict().items()} == before
    net.load_state_dict({k: v * 1.5 if "running_mean" in k else v for k, v in net.state_dict().items()})
    assert np.abs(net.predict(images) - whole).max() > 0.01 * np.abs(whole).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frozen_parts_give_the_same_bits_whether_or_not_a_gradient_passes(dtype: str) -> None:
    """Depth first where nothing is trained below; stage by stage where a gradient passes; op by op; in evaluation."""
    net = stir(minitl.networks.digits_irb(dtype=dtype))
    images, _ = batch(net, n=2, resolution=16)
    settle(net, images)

    def shifts(layer: Layer, blocks: int) -> LayerPlan:
        """Trains the stem's shift and nothing else, so that gradients reach all layers above."""
        return LayerPlan(train=frozenset({"bias"})) if layer.role == "stem_norm" else FROZEN

    methods = minitl.methods.get("ft-last"), minitl.methods.Method("shifts", "", shifts)
    outputs = [m.apply(net)(Tape(fused=fused), images).value for m in methods for fused in (True, False)]
    for output in (*outputs[1:], net.predict(images)):
        assert np.array_equal(output, outputs[0])


def test_rules_by_role() -> None:
    """mobiletl: the sign rule in the tuned blocks and the head, where the activation has one; else the baseline's."""
    for name, sign_in in (("mobilenet_v3_small", "hard_swish"), ("mobilenet_v2", "relu6")):
        net = trained(minitl.networks.get(name, width=0.1), "mobiletl", 10)
        part = tuned_part(net, 10)
        for layer in net.layers():
            if isinstance(layer, Activation):
                inner = layer.role in ("expand_act", "depthwise_act", "head_act", "classifier_act")
                sign = inner and layer.path in part and layer.op.name == sign_in
                assert layer.plan.rule == ("sign" if sign else ""), layer.path


def test_a_method_replaces_the_one_before() -> None:
    net = minitl.networks.digits_irb()
    for method, blocks in [("ft-all", None), ("mobiletl", 2), ("ft-bias", None), ("ft-last", None), ("mobiletl", 2)]:
        trained(net, method, blocks)
        assert set(net.trained_parameters()) == expected(net, method, blocks)
    fresh = trained(minitl.networks.digits_irb(), "mobiletl", 2)
    assert [layer.plan for layer in fresh.layers()] == [layer.plan for layer in net.layers()]


def test_the_default_is_five_blocks_or_all() -> None:
    assert trained(minitl.networks.digits_irb(), "mobiletl").tuned_blocks == 5
    assert trained(minitl.networks.irb(), "mobiletl").tuned_blocks == 1


def test_mobiletl_with_all_blocks_leaves_the_stem_frozen() -> None:
    net = trained(minitl.networks.digits_irb(), "mobiletl", 7)
    assert not any(name.startswith("features.0.") for name in net.trained_parameters())


# Bad choices


@pytest.mark.parametrize("blocks", [0, -1, 8, True, False, 2.0, "2", np.float64(2), [1]])
@pytest.mark.parametrize("method", ["ft-blocks", "mobiletl"])
def test_bad_numbers_of_blocks(method: str, blocks: Any) -> None:
    with pytest.raises(ValueRangeError, match=r"digits_irb: expected blocks from 1 to 7, got "):
        trained(minitl.networks.digits_irb(), method, blocks)


@pytest.mark.parametrize("method", ["ft-all", "ft-last", "ft-bias", "ft-norm"])
def test_methods_without_a_number_of_blocks_refuse_one(method: str) -> None:
    with pytest.raises(ValueRangeError, match=f"method {method} does not take a number of blocks, got blocks=3; leave"):
        minitl.methods.get(method, blocks=3)


def test_an_unknown_method() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown method 'mobile-tl' .did you mean 'mobiletl'.*; choose one of: ft-all, ft-last"
    ):
        minitl.methods.get("mobile-tl")


BAD_PLANS = {
    "parameter": (
        "expand", LayerPlan(train=frozenset({"scale"})), UnknownNameError, "unknown trained parameter 'scale'",
    ),
    "statistic": (
        "expand_norm", LayerPlan(train=frozenset({"running_mean"}), statistics="batch"), UnknownNameError,
        "unknown trained parameter 'running_mean'",
    ),
    "statistics": ("expand_norm", LayerPlan(statistics="running"), UnknownNameError, "choose one of: batch, frozen"),
    "scale": (
        "expand_norm", LayerPlan(train=frozenset({"weight"})), RuleError,
        "a norm with frozen statistics trains its shift only",
    ),
    "rule": ("expand_act", LayerPlan(rule="signs"), UnknownNameError, "rule 'signs' (did you mean 'sign'?)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PLANS)
def test_a_policy_that_asks_for_what_a_layer_has_not(case: str) -> None:
    role, plan, kind, words = BAD_PLANS[case]
    method = minitl.methods.Method("bad", "", lambda layer, blocks: plan if layer.role == role else FROZEN)
    with pytest.raises(kind) as caught:
        method.apply(minitl.networks.digits_irb())
    number = {"expand": 0, "expand_norm": 1, "expand_act": 2}[role]
    assert str(caught.value).startswith(f"features.1.conv.0.{number}")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (1, "2")},
        {"channels": None},
        {"ranks": (1.5,)},
        {"ranks": 3},
        {"pattern": (2,)},
        {"pattern": (2, True)},
    ],
)
def test_plans_of_other_than_whole_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"LayerPlan: expected {next(iter(wrong))} in whole numbers, got"):
        LayerPlan(**wrong)
    assert LayerPlan(ranks=np.array([1, 2, 3])[:].tolist(), pattern=[2, 4]) == LayerPlan(
        ranks=(1, 2, 3), pattern=(2, 4)
    )


@pytest.mark.parametrize("rule", ["quantised2", "razor", "filter2", "subspace", "channels"])
def test_a_rule_that_reads_what_another_encodes_is_refused(rule: str) -> None:
    net = trained(minitl.networks.digits_irb(), "ft-last")
    words = (
        r"features\.3\.conv\.0\.2 \(hard_swish\): rule output reads what features\.3\.conv\.1\.0 keeps, which its rule"
    )
    if rule == "channels":
        words = "expected 1 to .* channels"
    with pytest.raises(MinitlError, match=words):
        minitl.methods.get("mobiletl-exact", rules={"depthwise": rule}).apply(net)
    assert net.method == "ft-last"
    minitl.methods.get("mobiletl", rules={"depthwise": "quantised2"}).apply(net)


@pytest.mark.parametrize("method", ["mobiletl-exact", "slope"])
def test_a_convolutions_exact_rule_is_what_it_does_anyway(method: str) -> None:
    """Also where another rule would be refused: below a gate that is folded into it, and where its weight is pruned."""
    step = {"batch": 2, "resolution": 32}
    rules: tuple[dict[str, str], ...] = ({}, {"project": "exact"})
    usual, asked = (trained(minitl.networks.mobilenet_v3_small(width=0.35), method, 2, rules=r) for r in rules)
    assert minitl.accounting.predict(asked, **step).rows == minitl.accounting.predict(usual, **step).rows


def test_the_command_line_refuses_it_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_irb", "--method", "mobiletl-exact", "--rule", "depthwise=razor"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "features.3.conv.0.2 (hard_swish): rule output reads what features.3.conv.1.0 keeps" in err
    plan = ["plan", "digits_irb", "--budget", "20MB", "--batch", "1", "--rule", "depthwise=razor", "--csv"]
    assert main(plan) == 0
    told = capsys.readouterr().out
    assert "mobiletl," in told
    assert "mobiletl-exact," not in told


@pytest.mark.parametrize("channels", [0, 17, (), tuple(range(17))])
def test_channels_that_a_layer_has_not(channels: Any) -> None:
    plan = LayerPlan(train={"weight"}, rule="channels", channels=channels)
    method = minitl.methods.Method("some", "", lambda layer, blocks: plan if layer.role == "expand" else FROZEN)
    with pytest.raises(
        ValueRangeError, match=r"features\.1\.conv\.0\.0: expected 1 to 16 channels for rule channels, got"
    ):
        method.apply(minitl.networks.digits_irb())


def test_sparse_update_chooses_channels_when_training_begins() -> None:
    """Of the weights that were loaded after the method was applied; predicting and evaluating choose none."""
    net = trained(minitl.networks.digits_irb(), "sparse-update", 1)
    conv = net.blocks[-1].expand.conv
    state = net.state_dict()
    weight = state[f"{conv.path}.weight"]
    largest = list(range(3, weight.shape[1], 4))
    weight[:, largest] += 100 * np.sign(weight[:, largest])
    images, _ = batch(net, resolution=24)
    minitl.accounting.predict(net, batch=2, resolution=24)
    net.predict(images)
    assert conv.carried() == {}
    net.load_state_dict(state)
    net(Tape(), images)
    assert conv.carried()["channels"].tolist() == largest
    assert net.trained_count < sum(value.size for value in net.trained_parameters().values())


def test_an_unknown_role_and_activation() -> None:
    with pytest.raises(UnknownNameError, match="here: unknown role 'middle'; choose one of: stem, stem_norm"):
        Layer("here", "middle")
    with pytest.raises(
        UnknownNameError, match=r"expand_act: unknown activation 'gelu' .*; choose one of: hard_sigmoid"
    ):
        minitl.networks.irb(activation="gelu")


def test_a_method_is_a_value() -> None:
    method = minitl.methods.get("mobiletl", blocks=2)
    assert method == minitl.methods.get("mobiletl", 2) == replace(minitl.methods.get("mobiletl"), blocks=2)
    assert minitl.methods.get("mobiletl").blocks is None
    net = minitl.networks.digits_irb()
    assert method.apply(net) is net
    assert (net.method, net.tuned_blocks) == ("mobiletl", 2)
