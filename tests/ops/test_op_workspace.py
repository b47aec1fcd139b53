"""The memory that forward and backward hold in passing is what `cost` foresees."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from cases import NAMES, Dims, Spec, backward, forward, make
from checks import array_peak, check_workspace, predicted

from minitl import ops
from minitl.accounting.predict import FEW
from minitl.arrays import Shape
from minitl.kernels import threads
from minitl.ops.rules.sparse import SPARSE
from minitl.ops.rules.subspace import IN_SUBSPACE, shapes_of

MAP = Dims(n=4, h=32, w=32, c=63, o=63)  # nearly 1 MiB in float32; odd as in other tests, so that kernels are theirs
ROWS = Dims(n=512, c=512, o=500)  # (N, C) of 1 MiB
SIZES = {  # large weights besides, for the ops that have them
    "conv": (
        Dims(n=2, h=32, w=32, c=128, o=32),
        Dims(n=3, h=5, w=5, c=160, o=128),
        Dims(n=4, h=160, w=160, c=3, o=16, stride=2),
        Dims(n=2, h=4, w=4, c=640, o=512, k=1),
    ),
    "depthwise_conv": (
        MAP,
        Dims(n=8, h=4, w=4, c=1021, k=5),
        Dims(n=8, h=8, w=8, c=509, k=7, stride=2),
    ),
    "pointwise_conv": (MAP, Dims(n=2, h=4, w=4, c=640, o=512), Dims(n=4, h=32, w=32, c=64, o=8)),
    "gated_conv": (MAP, Dims(n=2, h=4, w=4, c=640, o=512)),
    "linear": (ROWS, Dims(n=4, c=1024, o=512), Dims(n=1024, c=256, o=16)),
    "cross_entropy": (ROWS,),
    **dict.fromkeys(("batch_norm", "frozen_norm"), (MAP, Dims(n=48, h=14, w=14, c=63))),
    **dict.fromkeys(("scale", "add_channels", "global_avg_pool"), (MAP, Dims(n=64, h=4, w=4, c=64))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "dims"), [(name, d) for name in NAMES for d in SIZES.get(name, (MAP,))])
def test_workspace_is_what_cost_foresees(name: str, dims: Dims, dtype: str) -> None:
    spec = NAMES[name]
    every = make(spec, dims, dtype=dtype)
    flags = [(False, True) if can else (False,) for can in every.wantable]
    for needs in product(*flags):
        check_workspace(make(spec, dims, dtype=dtype, needs=needs))


LONG = {  # many channels and few positions: a vector of a number per channel counts there
    "gated_conv": Dims(n=2, h=1, w=2, c=1280, o=320),
    "linear": Dims(n=2, c=320, o=1280, flag=True),
    "pointwise_conv": Dims(n=2, h=2, w=2, c=320, o=1280),
    "depthwise_conv": Dims(n=2, h=4, w=4, c=1024),
    "cross_entropy": Dims(n=8, c=1280),
    "batch_norm": Dims(n=2, h=4, w=4, c=1280),
    "frozen_norm": Dims(n=2, h=4, w=4, c=1280),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LONG)
def test_vectors_are_foreseen_where_they_are_long(name: str, dtype: str) -> None:
    case = make(NAMES[name], LONG[name], dtype=dtype)
    cost, (y, saved) = predicted(case), forward(case)
    backward(case, saved)  # compile first
    own = sum(k.nbytes for k in cost.kept if k.source is None)
    own += sum(a.nbytes for a, n in zip(case.arrays, case.op.inputs, strict=True) if n in case.op.updates)  # copies
    fresh = sum(a.nbytes for a, need in zip(case.arrays, case.needs, strict=True) if need)
    forth = array_peak(lambda: forward(case)) - (y.nbytes + own + cost.forward_workspace)
    back = array_peak(lambda: backward(case, saved)) - (fresh + cost.backward_workspace)
    assert forth <= 512
    assert abs(back) <= 512


def test_it_is_foreseen_for_the_threads_in_force() -> None:
    """Each has scratch memory, also where the same call has been foreseen for another number of them."""
    case, before, foreseen = make(NAMES["pointwise_conv"], MAP, dtype="float32"), threads.count(), []
    try:
        for count in (1, 2, 1):
            threads.set_threads(count)
            check_workspace(case)
            foreseen.append(predicted(case).backward_workspace)
    finally:
        threads.set_threads(before)
    one, two, again = foreseen
    assert one == again < two


@pytest.mark.parametrize("n", [1, 7, 9])
def test_a_mask_of_few_rows_is_unpacked_to_whole_bytes(n: int) -> None:
    case = make(NAMES["dropout"], Dims(n=n, c=1 << 16, flag=True), dtype="float32")
    cost, (y, saved) = predicted(case), forward(case)
    for call, left, foreseen in (
        (lambda: forward(case), y.nbytes + saved.nbytes, cost.forward_workspace),
        (lambda: backward(case, saved), y.nbytes, cost.backward_workspace),
    ):
        assert 0 <= left + foreseen - array_peak(call) + FEW <= 2 * FEW


def _channels(d: Dims) -> dict[str, Any]:
    return {"channels": tuple(range(1, d.c, 4))}


def _integers(d: Dims) -> tuple[Shape, ...]:
    return (d.n, d.h, d.w, 2 * d.c), (2 * d.o, d.c, d.k, d.k)


def _bases(name: str) -> Callable[[Dims], tuple[Shape, ...]]:
    def shapes(d: Dims) -> tuple[Shape, ...]:
        x, weight, *_ = NAMES[name].shapes(d)
        return x, weight, *shapes_of(x)

    return shapes


SOME = Dims(n=4, h=24, w=24, c=64, o=48)
WIDE = Dims(n=4, h=6, w=6, c=256, o=192)
CODED = [  # every rule that makes arrays of its own in passing, where maps are large and where weights are
    (Spec(getattr(ops, name), NAMES[name].shapes, _channels if rule == "channels" else lambda d: {}, rule=rule), dims)
    for rule in ("quantised2", "razor", "channels", "filter2")
    for name, dims in (
        ("conv", Dims(n=2, h=24, w=24, c=64, o=32)), ("depthwise_conv", SOME), ("pointwise_conv", SOME),
        ("pointwise_conv", WIDE), ("linear", ROWS),
    )
    if rule in getattr(ops, name).rules
] + [
    (Spec(op, _bases(name), rule=rule), SOME) for name, op in IN_SUBSPACE.items() for rule in op.rules
] + [
    (Spec(op, NAMES[name].shapes, lambda d: {"pattern": (2, 4)}), WIDE) for name, op in SPARSE.items()
] + [
    (Spec(ops.conv_int, _integers, lambda d: {"groups": 2}, rule="integer"), Dims(n=4, h=24, w=24, c=16, o=8)),
    (Spec(ops.conv_int, _integers, lambda d: {"groups": 2}, rule="bit-serial"), Dims(h=12, w=12, c=8, o=8)),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "dims"), CODED, ids=[f"{spec.name}-{d.h}" for spec, d in CODED])
def test_workspace_of_the_rules_that_encode(spec: Spec, dims: Dims) -> None:
    for wanted in ((True, True, True), (True, False, True), (False, True, False)):
        check_workspace(make(spec, dims, dtype="float32", needs=(*wanted, False, False)))


def test_the_maps_are_large_enough_to_tell() -> None:
    """One map more or less is far outside the slack of `check_workspace`."""
    for name, spec in NAMES.items():
        case = make(spec, SIZES.get(name, (MAP,))[0], dtype="float32")
        slack = FEW + 2 * 8 * max(case.arrays[0].shape[-1], case.dims.n)
        assert case.arrays[0].nbytes > 4 * slack
        assert spec.op is not ops.add or case.arrays[1].nbytes > 4 * slack
