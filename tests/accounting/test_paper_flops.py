"""The paper's FLOPs convention, op by op, in the numbers of its table written out."""

from __future__ import annotations

import pytest
from models import trained

import minitl
from minitl.accounting.paper_flops import paper_flops
from minitl.errors import UnknownNameError
from minitl.networks import Network
from minitl.ops import Split
from minitl.records import OpRecord
from minitl.shadow import ShadowTape

N, K = 2, 3  # images and classes


def records(method: str, name: str = "digits_irb") -> list[OpRecord]:
    net: Network = trained(minitl.networks.get(name, num_classes=K), method)
    tape = ShadowTape(fused=False)
    net.loss(tape, net(tape, tape.phantom((N, 24, 24, 3), "float32")), tape.phantom((N,), "int64"))
    assert all(isinstance(record, OpRecord) for record in tape.records)
    return tape.records  # type: ignore[return-value]


def size(record: OpRecord) -> int:
    n, *rest = record.cost.output or (1,)
    for extent in rest:
        n *= extent
    return n


def test_frozen_norms() -> None:
    """4 operations an element forward, 1 for its shift's gradient, 1 for its input's."""
    seen = set()
    for method in ("ft-bias", "mobiletl", "ft-last"):
        for r in records(method):
            if r.name == "frozen_norm":
                n = size(r)
                assert paper_flops(r) == Split(4 * n, n if r.needs[0] else 0, n if r.needs[2] else 0)
                seen.add((r.needs[0], r.needs[2]))
    assert (True, True) in seen
    assert len(seen) > 1


def test_trained_norms() -> None:
    found = [r for r in records("ft-all") if r.name == "batch_norm"]
    for r in found:
        n, c = size(r), r.shapes[0][3]
        assert paper_flops(r) == Split(7 * n + 3 * c, 14 * n + 12 * c)
    assert found


def test_convolutions_and_linear_layers() -> None:
    kinds = set()
    for r in records("ft-all"):
        if r.name in ("conv", "pointwise_conv", "depthwise_conv", "linear"):
            o, i, *kernel = r.shapes[1]
            weights = o * i * (kernel[0] ** 2 if kernel else 1)
            m = size(r) * weights // o
            x = r.shapes[0][0] * r.shapes[0][-1] * (r.shapes[0][1] * r.shapes[0][2] if kernel else 1)
            gx = 2 * m - (x if r.name == "depthwise_conv" else 0)
            bias = size(r) - o if len(r.shapes) > 2 else 0
            assert paper_flops(r) == Split(2 * m, gx if r.needs[0] else 0, 2 * m - weights + bias), r.layer
            kinds.add((r.name, len(r.shapes) > 2))
    assert kinds == {
        ("conv", False), ("pointwise_conv", False), ("pointwise_conv", True), ("depthwise_conv", False),
        ("linear", True),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("op", "forward", "backward"),
    [
        ("hard_swish", 5, 12), ("hard_sigmoid", 4, 5), ("relu", 0, 3), ("scale", 0, 2), ("add", 0, 0),
        ("global_avg_pool", 0, 0), ("cross_entropy", 0, 0), ("relu6", 0, 3),
    ],
)  # fmt: skip
def test_elementwise(op: str, forward: int, backward: int) -> None:
    network = "mobilenet_v2" if op == "relu6" else "digits_irb"
    for method, trains in (("ft-all", 1), ("ft-last", 0)):
        found = [r for r in records(method, network) if r.name == op]
        assert {paper_flops(r) for r in found} == {
            Split(forward * size(r), trains * backward * size(r)) for r in found
        }, method
        assert found


def test_an_op_without_a_count_is_not_counted_as_nothing() -> None:
    record = records("ft-last")[0]
    strange = type("Strange", (), {"name": "fft", "layer": "here"})()
    with pytest.raises(UnknownNameError, match="here: unknown op to count FLOPs of 'fft'; choose one of: relu, "):
        paper_flops(strange)
    assert paper_flops(record).total > 0
