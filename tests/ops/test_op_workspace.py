"""The memory that forward and backward hold in passing is what `cost` foresees."""

from __future__ import annotations

from itertools import product

import pytest
from cases import NAMES, Dims, make
from checks import check_workspace

from minitl import ops

MAP = Dims(n=4, h=32, w=32, c=64, o=64)  # 1 MiB in float32
ROWS = Dims(n=512, c=512, o=500)  # (N, C) of 1 MiB
SIZES = {  # large weights besides, for the ops that have them
    "conv": (
        Dims(n=2, h=32, w=32, c=128, o=32),
        Dims(n=3, h=5, w=5, c=160, o=128),
        Dims(n=4, h=160, w=160, c=3, o=16, stride=2),
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
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "dims"), [(name, d) for name in NAMES for d in SIZES.get(name, (MAP,))])
def test_workspace_is_what_cost_foresees(name: str, dims: Dims, dtype: str) -> None:
    spec = NAMES[name]
    every = make(spec, dims, dtype=dtype)
    flags = [(False, True) if can else (False,) for can in every.wantable]
    for needs in product(*flags):
        check_workspace(make(spec, dims, dtype=dtype, needs=needs))


def test_the_maps_are_large_enough_to_tell() -> None:
    """One map more or less is far outside the slack of `check_workspace`."""
    for name, spec in NAMES.items():
        case = make(spec, SIZES.get(name, (MAP,))[0], dtype="float32")
        slack = 64 * 1024 + 40 * 8 * max(case.arrays[0].shape[-1], case.dims.n)
        assert case.arrays[0].nbytes > 2 * slack
        assert spec.op is not ops.add or case.arrays[1].nbytes > 2 * slack
