"""Frozen weights in 8 bits: which, how exactly, in how many bytes, and how little they change what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import gamma, unit
from checks import same_bytes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from models import batch, noise, stir, trained

import minitl
from minitl import ops
from minitl.accounting import measure, predict
from minitl.arrays import Array
from minitl.blocks import ConvNorm, ConvSpec
from minitl.layers import Linear
from minitl.networks import Network
from minitl.networks.network import build
from minitl.parameters import Parameter
from minitl.step import loss_and_gradients
from minitl.tape import Tape

NETS = {"digits_irb": {"dropout": 0.1}, "mobilenet_v3_small": {"width": 0.25}, "mobilenet_v2": {"width": 0.1}}
METHODS = [("ft-last", None), ("ft-bias", None), ("ft-norm", None), ("ft-blocks", 2), ("mobiletl", 3), ("ft-all", None)]
CASES = [(name, *method) for name in NETS for method in METHODS]


def network(name: str, method: str, blocks: int | None, **options: Any) -> Network:
    net = stir(minitl.networks.get(name, num_classes=10, **NETS[name]))
    return trained(net, method, blocks, **options)


def contents(net: Network) -> dict[str, tuple[Any, ...]]:
    return {p.name: (p.value.dtype, p.value.tobytes(), p.scale) for p in net.parameters()}


# One weight

WEIGHTS = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: arrays(
        dtype,
        array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
    )
)


@given(weight=WEIGHTS)
def test_every_weight_is_within_half_a_step(weight: Array) -> None:
    """At most scale / 2 off, and rounding: three times, of numbers up to 127 steps."""
    p = Parameter("weight", weight.copy())
    p.quantise()
    assert p.scale is not None
    assert (p.value.dtype.name, p.value.shape) == ("int8", weight.shape)
    assert (p.scale.dtype, p.scale.shape, p.dtype) == (weight.dtype, weight.shape[:1], weight.dtype.name)
    assert p.nbytes == weight.size + weight.dtype.itemsize * len(weight)
    assert abs(p.value.astype(int)).max() <= 127
    back, rows = p.array(), (len(weight), -1)
    assert (back.dtype, back.shape) == (weight.dtype, weight.shape)
    wrong = abs(back.astype(float) - weight).reshape(rows)
    assert (wrong <= p.scale[:, None].astype(float) * (0.5 + 3 * 127 * unit(p.dtype))).all()
    most = abs(weight).reshape(rows).max(axis=1)
    large = most > 127 * np.finfo(weight.dtype).tiny
    assert (abs(p.value.astype(int)).reshape(rows).max(axis=1)[large] == 127).all(), "all 8 bits are used"
    assert not back.reshape(rows)[most == 0].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_channels_of_zeros_and_of_all_but_zeros(dtype: str) -> None:
    least, tiny = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny
    channels = [[0, 0], [least, -least], [190 * least, 0], [tiny, -tiny], [-0.0, 1], [1e38, 0]]
    weight = np.array(channels, dtype)
    p = Parameter("weight", weight.copy())
    with np.errstate(all="raise", under="ignore"):
        p.quantise()
    assert p.scale is not None
    assert (p.scale >= tiny).all()
    assert p.value.tolist() == [[0, 0], [0, 0], [0, 0], [1, -1], [0, 127], [127, 0]]
    assert (abs(p.array() - weight)[:4] <= tiny / 2).all()


def test_quantising_twice_is_quantising_once_and_numbers_on_the_grid_stay() -> None:
    weight = noise((6, 5, 3, 3), dtype="float32")
    p = Parameter("weight", weight)
    p.quantise()
    value, scale = p.value, p.scale
    p.quantise()
    assert p.value is value
    assert p.scale is scale
    again = Parameter("weight", p.array())
    again.quantise()
    assert same_bytes(again.value, value)
    assert np.allclose(again.scale, scale, rtol=4 * unit("float32"), atol=0)  # 127 s / 127, rounded twice, and s


# Whole networks


@pytest.mark.parametrize(("name", "method", "blocks"), CASES)
def test_frozen_convolutions_and_linear_layers_and_nothing_else(name: str, method: str, blocks: int | None) -> None:
    net, plain = network(name, method, blocks, quantised=True), network(name, method, blocks)
    assert net.trained_parameters().keys() == plain.trained_parameters().keys()
    frozen = 0
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        if p.name.endswith(".weight") and p.value.ndim > 1 and not p.trained:  # a norm's has one dimension
            assert p.value.dtype == np.int8
            assert p.scale is not None
            assert p.scale.shape == (len(q.value),)
            frozen += q.value.size + 4 * len(q.value)
        else:
            assert p.scale is None
            assert same_bytes(p.value, q.value)
            frozen += 0 if p.trained or p.statistic else q.value.nbytes
    assert bool(frozen) == (method != "ft-all")
    one, other = (predict(n, batch=3, resolution=24, optimizer_slots=1) for n in (net, plain))
    held = sum(p.value.nbytes + (0 if p.scale is None else p.scale.nbytes) for p in net.parameters())
    t = one.totals
    assert t.frozen_parameter_bytes == frozen
    assert t.trained_parameter_bytes + t.frozen_parameter_bytes + t.buffer_bytes == held
    assert one.rows == other.rows
    assert other.totals.total_bytes - t.total_bytes == other.totals.frozen_parameter_bytes - frozen
    assert t.flops == other.totals.flops


@pytest.mark.parametrize(("name", "method", "blocks"), [c for c in CASES if c[1] != "ft-all"])
def test_gradients_are_those_of_a_float_network_with_the_rounded_weights(
    name: str, method: str, blocks: int | None
) -> None:
    """To the bit; and a step leaves the codes, the scales and all else that is frozen as it was."""
    net = network(name, method, blocks, quantised=True)
    rounded = minitl.networks.get(name, num_classes=10, **NETS[name])
    rounded.load_state_dict(net.state_dict())
    trained(rounded, method, blocks)
    before, unrounded = contents(net), network(name, method, blocks)
    images, labels = batch(net, n=3, resolution=24)
    ours, floats, others = (loss_and_gradients(n, images, labels) for n in (net, rounded, unrounded))
    assert ours[0] == floats[0] != others[0]
    assert same_bytes(ours[1], floats[1])
    assert ours[2].keys() == floats[2].keys() == net.trained_parameters().keys()
    assert all(same_bytes(gradient, floats[2][name]) for name, gradient in ours[2].items())
    statistics = {p.name for p in net.parameters() if p.statistic}
    assert {n: v for n, v in contents(net).items() if n not in statistics} == {
        n: v for n, v in before.items() if n not in statistics
    }


@pytest.mark.parametrize(("name", "method", "blocks"), [c for c in CASES if c[1] in ("ft-last", "mobiletl")])
def test_predicted_is_held_is_traced(name: str, method: str, blocks: int | None) -> None:
    net = network(name, method, blocks, quantised=True)
    got = measure(net, batch=3, resolution=24)
    assert predict(net, batch=3, resolution=24).kept_bytes == got.held_bytes == got.traced_bytes


def test_a_state_dict_goes_out_in_floats_and_comes_back_to_the_same_codes() -> None:
    net = network("digits_irb", "mobiletl", 2, quantised=True)
    state = net.state_dict()
    assert {array.dtype.kind for array in state.values()} == {"f", "i"}  # counters of batches
    other = trained(minitl.networks.digits_irb(seed=5), "mobiletl", 2, quantised=True)
    other.load_state_dict(state)
    quantised = 0
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert same_bytes(p.value, q.value)
        assert (p.scale is None) == (q.scale is None)
        if p.scale is not None:
            quantised += 1
            assert np.allclose(q.scale, p.scale, rtol=4 * unit("float32"), atol=0)
    assert (
        quantised == 1 + 3 * 5 + 2 * 2
    )  # the stem; three in each of the lower five blocks, and two more where there is an SE
    assert all(array.flags.owndata for array in state.values())


def test_another_method_makes_floats_of_them_again() -> None:
    net = network("digits_irb", "ft-last", None, quantised=True)
    rounded = net.state_dict()
    trained(net, "mobiletl", 2)
    for p in net.parameters():
        assert p.scale is None
        assert same_bytes(p.value, rounded[p.name])
    trained(net, "mobiletl", 2, quantised=True)
    arrays_of_the_optimizer = net.trained_parameters()
    assert all(array.dtype == np.float32 and array.flags.writeable for array in arrays_of_the_optimizer.values())


# How far outputs move


def check_moved(rounded: Array, exact: Array, bound: Array, rounding: Array) -> None:
    """Within the bound; and the bound is no more than ten times what is really reached, so it says something."""
    moved = abs(rounded - exact)
    assert (moved <= bound + rounding).all()
    assert (moved > 0.1 * bound).any()


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "kernel", "stride", "depthwise"),
    [
        ("stem", 3, 8, 3, 2, False), ("expand", 5, 12, 1, 1, False),
        ("depthwise", 8, 8, 5, 1, True), ("depthwise", 8, 8, 3, 2, True),
    ],
)  # fmt: skip
def test_outputs_of_a_convolution_and_its_norm(
    kind: str, inputs: int, outputs: int, kernel: int, stride: int, depthwise: bool
) -> None:
    """y[o] = sum a[o] w x + shift moves by at most sum |x| |a[o]| scale[o] / 2, with a = gamma / sqrt(var + eps)."""
    spec = ConvSpec(kind, inputs, outputs, kernel, stride, depthwise)
    part = ConvNorm(spec, ("conv", "norm", "act"), build(3, "float64", eps=1e-3, momentum=0.1))
    rng = np.random.default_rng(0)
    norm, weight = (layer.parameters for layer in (part.norm, part.conv))
    for name, p in norm.items():
        p.value[...] = rng.uniform(0.5, 2, outputs) * (1 if name == "running_var" else rng.choice([-1, 1], outputs))
    x, p = noise((2, 9, 7, inputs)), weight["weight"]

    def run() -> Array:
        tape = Tape()
        y = part(tape, tape.images(x, inputs, "float64")).value
        assert [record.name for record in tape.records] == [part.conv.op.name, "frozen_norm"]
        return y

    exact, float_weight = run(), p.value.copy()
    p.quantise()
    assert p.scale is not None
    factor = abs(norm["weight"].value) / np.sqrt(norm["running_var"].value + 1e-3)

    def absolute(weight: Array) -> Array:
        return part.conv.op.forward(abs(x), abs(weight), attrs=part.conv.attrs, needs=(False, False))[0]

    wide = (slice(None), None, None, None)
    half_steps = np.broadcast_to((factor * p.scale / 2)[wide], float_weight.shape)
    shift = abs(norm["bias"].value) + factor * abs(norm["running_mean"].value)
    terms = absolute(2 * factor[wide] * abs(float_weight) + 3 * half_steps) + 2 * shift  # of both runs
    rounding = gamma(float_weight[0].size + 8, unit("float64")) * terms
    check_moved(run(), exact, absolute(half_steps.copy()), rounding)


@pytest.mark.parametrize("op", ["linear", "pointwise_conv"])
def test_outputs_of_a_linear_layer(op: str) -> None:
    """y[o] = sum w[o] x + b moves by at most sum |x| scale[o] / 2."""
    layer = Linear("fc", 7, 20, rng=np.random.default_rng(1), dtype="float64", final=False)
    p, bias = layer.parameters["weight"], layer.parameters["bias"]
    bias.value[...] = noise((20,), 2)
    if op == "pointwise_conv":  # as in squeeze-and-excite
        p.value = p.value[:, :, None, None].copy()
    x = noise((30, 7) if op == "linear" else (30, 1, 1, 7), 3)

    def run() -> Array:
        return getattr(ops, op).forward(x, p.array(), bias.array(), needs=(False,) * 3)[0].reshape(30, 20)

    exact, float_weight = run(), p.value.reshape(20, 7).copy()
    p.quantise()
    assert p.scale is not None
    inputs, half = abs(x).reshape(30, 7), p.scale / 2
    bound = inputs.sum(axis=1, keepdims=True) * half
    terms = inputs @ (2 * abs(float_weight) + half[:, None]).T + 2 * abs(bias.value)
    check_moved(run(), exact, bound, gamma(7 + 8, unit("float64")) * terms)
