"""Networks and blocks against PyTorch in float64: names, shapes, outputs, gradients, running statistics.

`pytest -s tests/networks/test_network_torch.py` prints the largest differences found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import block, block_attrs, noise, settle, stir, trained

import minitl
from minitl.arrays import Array
from minitl.tape import Tape

torch = pytest.importorskip("torch")
import torch_mobilenets as theirs  # noqa: E402

# Two float64 computations of one formula differ by rounding, u = 1.1e-16, summed up over some 60
# layers of sums of up to 10^3 terms, and amplified by norms over as few as 8 values: a factor of a
# million over u is ample for that. A wrong slope, norm or statistic shows in the first digits.
# Differences are taken relative to the largest entry of all gradients (or of the array, for
# outputs and statistics), for some gradients are 0 but for rounding.
TOLERANCE = 1e-10

METHODS = {
    "small": [("ft-all", None), ("ft-last", None), ("ft-bias", None), ("ft-norm", None), ("ft-blocks", 1),
              ("ft-blocks", 5), ("mobiletl", 3), ("mobiletl", 7)],
    "large": [("ft-all", None), ("ft-bias", None), ("ft-blocks", 5), ("mobiletl", 9)],
    "narrow": [("ft-all", None), ("mobiletl", 4)],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torch_state(state: dict[str, Array]) -> dict[str, Any]:
    return {name: torch.tensor(array) for name, array in state.items()}


def nchw(x: Array) -> Any:
    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def compare(found: dict[str, Array], expected: dict[str, Any]) -> tuple[float, float]:
    """The largest difference, absolute and relative to the largest entry; names and shapes must be the same."""
    assert found.keys() == expected.keys()
    worst = largest = 0.0
    for name, array in found.items():
        other = expected[name].detach().numpy()
        assert array.shape == other.shape, name
        worst = max(worst, float(abs(array - other).max()))
        largest = max(largest, float(abs(other).max()))
    return worst, worst / (largest or 1.0)


@pytest.mark.parametrize("width", [1.0, 0.5])
@pytest.mark.parametrize("name", theirs.NETS)
def test_names_and_shapes(name: str, width: float) -> None:
    ours = minitl.networks.get(name, num_classes=7, width=width).state_dict()
    other = theirs.NETS[name](7, width).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: tuple(v.shape) for k, v in other.items()}
    assert list(ours) == list(other), "the order is torchvision's too"


@pytest.mark.parametrize("width", [1.0, 0.5])
@pytest.mark.parametrize("name", theirs.NETS)
def test_outputs_gradients_and_statistics(name: str, width: float) -> None:
    """At 33 pixels every stride meets odd sizes, and two are left at the top."""
    size, n = (17, 4) if name == "digits_irb" else (33, 3)
    images, labels = noise((n, size, size + 2, 3), 1), np.arange(n) * 2
    net = minitl.networks.get(name, num_classes=7, width=width, dropout=0.0, dtype="float64")
    state = settle(stir(net), images).state_dict()
    other = theirs.NETS[name](7, width, dropout=0.0).double()
    worst = (0.0, 0.0)
    kind = "small" if name in ("digits_irb", "mobilenet_v3_small") else "large"
    kind = "narrow" if width < 1 or name == "mcunet_in2" else kind
    for method, blocks in METHODS[kind]:
        trained(net, method, blocks).load_state_dict(state)
        other.load_state_dict(torch_state(state))
        theirs.tune(other, method, blocks)
        tape = Tape()
        logits = net(tape, images)
        gradients = tape.backward(net.loss(tape, logits, labels))
        other.zero_grad(set_to_none=True)
        expected = other(nchw(images))
        torch.nn.functional.cross_entropy(expected, torch.tensor(labels)).backward()
        assert compare({"logits": logits.value}, {"logits": expected})[1] < TOLERANCE
        difference = compare(gradients, {n: p.grad for n, p in other.named_parameters() if p.grad is not None})
        assert difference[1] < TOLERANCE, (method, blocks)
        after = other.state_dict()
        for key, value in net.state_dict().items():
            assert compare({key: value}, {key: after[key]})[1] < TOLERANCE, (method, blocks)
        worst = max(worst, difference, key=lambda d: d[1])
    print(f"\n{name} width {width}: largest gradient difference {worst[0]:.1e}, relative {worst[1]:.1e}")
    other.load_state_dict(torch_state(state))
    other.eval()
    assert compare({"": net.predict(images)}, {"": other(nchw(images))})[1] < 1  # running statistics have moved
    net.load_state_dict(state)
    assert compare({"": net.predict(images)}, {"": other(nchw(images))})[1] < TOLERANCE


WORST: dict[str, tuple[float, float, int]] = {}


@pytest.fixture(scope="module", autouse=True)
def _report() -> Iterator[None]:
    yield
    for method, (absolute, relative, count) in WORST.items():
        print(f"\nrandom blocks, {method}: {count} blocks, largest gradient difference {absolute:.1e}, "
              f"relative {relative:.1e}", end="")  # fmt: skip


@pytest.mark.parametrize("method", ["ft-blocks", "mobiletl"])
@settings(max_examples=max(40, settings().max_examples))
@given(attrs=block_attrs(), n=st.integers(2, 4), h=st.integers(3, 12), w=st.integers(3, 12), seed=st.integers(0, 2**16))
def test_random_blocks(method: str, attrs: dict[str, Any], n: int, h: int, w: int, seed: int) -> None:
    """Here also the gradient of the block's input, on which nothing else depends."""
    wide = {name: 4 * attrs[name] for name in ("in_channels", "expanded_channels", "out_channels")}
    attrs = {**attrs, **wide}
    model = block(method, {**attrs, "input_grad": True}, seed=seed)
    x = noise((n, h, w, attrs["in_channels"]), seed)
    other = theirs.Block(
        attrs["in_channels"], attrs["expanded_channels"], attrs["out_channels"],
        attrs["kernel"], attrs["stride"], attrs["activation"], attrs["se_channels"], attrs["expand"],
        theirs.V3_NORM, v3=True,
    ).double()  # fmt: skip
    named = other.by_role()
    for layer, module in named.items():
        own = {k.removeprefix(f"{layer}."): v for k, v in model.state_dict().items() if k.rpartition(".")[0] == layer}
        module.load_state_dict(torch_state(own))
    theirs.train_fully(other) if method == "ft-blocks" else theirs.mobiletl_block(other)
    tape = Tape()
    y = model(tape, x)
    gy = noise(y.shape, seed + 1)
    gradients = tape.backward(y, gy)
    (gx,) = tape.input_gradients.values()
    gradients["x"] = np.ascontiguousarray(gx.transpose(0, 3, 1, 2))
    image = nchw(x).requires_grad_()
    expected = other(image)
    expected.backward(nchw(gy))
    assert compare({"y": y.value.transpose(0, 3, 1, 2)}, {"y": expected})[1] < TOLERANCE
    wanted = {f"{at}.{n}": p.grad for at, m in named.items() for n, p in m.named_parameters() if p.grad is not None}
    difference = compare(gradients, {**wanted, "x": image.grad})
    assert difference[1] < TOLERANCE
    state = {f"{at}.{n}": v for at, m in named.items() for n, v in m.state_dict().items()}
    for key, value in model.state_dict().items():
        assert compare({key: value}, {key: state[key]})[1] < TOLERANCE
    before = WORST.get(method, (0.0, 0.0, 0))
    WORST[method] = (*max(before[:2], difference, key=lambda d: d[1]), before[2] + 1)
