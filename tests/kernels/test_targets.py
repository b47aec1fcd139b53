"""The bits of a training step do not depend on the processor's vectors, nor on the shape of the tiles.

A kernel is compiled for the processor at hand; here also for older ones, and with other tiles, from
nothing. So the steps are of one small block: what costs time is compiling.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from models import block, noise
from scripts import run_script

from minitl.errors import MinitlError
from minitl.kernels.target import target
from minitl.tape import Tape

ATTRS = {  # 19 channels are 2, 3 or 5 vectors, the last not whole
    "in_channels": 5, "expanded_channels": 19, "out_channels": 5, "kernel": 3, "stride": 1,
    "activation": "hard_swish", "se_channels": 0,
}  # fmt: skip


def digests() -> list[str]:
    """A line for each number and array that a step of `mobiletl` and one of `ft` give."""
    lines = []
    for method in ("mobiletl", "ft-all"):
        model, tape = block(method, ATTRS, dtype="float32"), Tape()
        y = model(tape, noise((3, 9, 6, 5), dtype="float32"))
        gradients = tape.backward(y, noise(y.shape, 1, dtype="float32"))
        arrays = {"y": y.value, **gradients, **model.state_dict()}
        lines += [f"{method} {n} {hashlib.sha256(np.ascontiguousarray(a)).hexdigest()}" for n, a in arrays.items()]
    return lines


DIGESTS = """
from minitl.kernels.target import target
from test_targets import digests
print(*target())
print(*digests(), sep="\\n")
"""

INTEL = platform.machine().lower() in ("x86_64", "amd64")


def has_avx2() -> bool:
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return bool(features.get("avx2") and features.get("fma"))


@pytest.mark.parametrize(
    ("variables", "tile"),
    [
        pytest.param(
            {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
            (32, 4, 3),
            marks=pytest.mark.skipif(not (INTEL and has_avx2()), reason="the processor has no AVX2"),
            id="AVX2",
        ),
        pytest.param(
            {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2", "MINITL_TILE": "16,5,1"},
            (16, 5, 1),
            marks=pytest.mark.skipif(not INTEL, reason="the processor has no SSE4.2"),
            id="SSE4.2 and a tile of another shape",
        ),
    ],
)
def test_a_step_has_the_same_bits(variables: dict[str, str], tile: tuple[int, int, int], tmp_path: Path) -> None:
    out = run_script(DIGESTS, path=Path(__file__).parent, NUMBA_CACHE_DIR=str(tmp_path), **variables).splitlines()
    assert out[0] == " ".join(map(str, tile))
    assert out[1:] == digests()
    expect_an_index_for_each_kernel(tmp_path)


def expect_an_index_for_each_kernel(cache: Path) -> None:
    """Two processes that add to one index at the same time may each find the other's kernel under their own's name."""
    indexes, kernels = ({path.name.split(".py")[0] for path in cache.rglob(f"*.{end}")} for end in ("nbi", "nbc"))
    assert indexes == kernels
    assert len(list(cache.rglob("*.nbc"))) == len(kernels) > 15


@pytest.fixture
def anew() -> Iterator[None]:
    """The target is read anew, and again afterwards."""
    target.cache_clear()
    yield
    target.cache_clear()


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("+avx,+avx2,+avx512f,+fma", (64, 7, 3)),
        ("+avx,+avx2,+fma,-avx512f", (32, 4, 3)),
        ("+avx2,-fma", (16, 4, 2)),
        ("+sse2", (16, 4, 2)),
        ("+fp-armv8,+neon", (16, 7, 3)),
    ],
)
def test_the_tile_is_that_of_numba_s_target(
    monkeypatch: pytest.MonkeyPatch, features: str, expected: tuple[int, int, int]
) -> None:
    monkeypatch.delenv("MINITL_TILE", raising=False)
    monkeypatch.setattr("numba.core.config.CPU_FEATURES", features)
    assert target() == expected


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("text", ["32", "32,4,x", "24,4,3", "32,0,3", "32,4,0", "32,4,3,1"])
def test_a_tile_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MINITL_TILE", text)
    with pytest.raises(MinitlError, match="MINITL_TILE=BYTES,ROWS,VECS"):
        target()
