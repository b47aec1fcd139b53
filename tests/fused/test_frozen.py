"""The frozen part gives the op-by-op path's bits, however maps are cut into rows and bands, and weights into panels."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import noise, shuffle_tasks, stir

import minitl
from minitl.arrays import Array
from minitl.fused import frozen
from minitl.fused.program import Stage
from minitl.kernels import threads
from minitl.tape import Tape

NETWORKS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "proxyless_mobile")


def evaluated(
    name: str, images: Array, limits: dict[str, int], *, fused: bool = True, order: int | None = None
) -> Array:
    """The logits of a network whose frozen part works within these limits, its tasks perhaps in some other order."""
    options: Any = {"num_classes": 3, "width": 0.25, "dtype": images.dtype.name}
    with pytest.MonkeyPatch.context() as patch:
        for limit, value in limits.items():
            patch.setattr(frozen, limit, value)
        if order is not None:
            shuffle_tasks(patch, order)
        return stir(minitl.networks.get(name, **options))(Tape(training=False, fused=fused), images).value


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    name=st.sampled_from(NETWORKS),
    shape=st.tuples(st.sampled_from([1, 2]), st.integers(17, 40), st.integers(17, 40)),
    workers=st.integers(1, 8),
    limits=st.fixed_dictionaries(
        {
            "BANDS": st.sampled_from([1, 2, 5]),
            "NEAR": st.sampled_from([1, 1 << 10, 1 << 13]),
            "WHOLE": st.sampled_from([0, 1 << 11, 1 << 30]),
            "SMALL": st.sampled_from([0, 1 << 11, 1 << 18]),
            "FEW": st.sampled_from([0, 5, 64]),
            "LARGE": st.sampled_from([0, 1 << 18]),
        }
    ),
    dtype=st.sampled_from(["float32", "float64"]),
    order=st.integers(0, 3),
)
def test_rows_bands_and_panels_give_the_same_bits(
    name: str, shape: tuple[int, int, int], workers: int, limits: dict[str, int], dtype: str, order: int
) -> None:
    images = noise((*shape, 3), dtype=dtype)
    before = threads.count()
    threads.set_threads(workers)
    try:
        got = evaluated(name, images, limits, order=order)
    finally:
        threads.set_threads(before)
    assert got.tobytes() == evaluated(name, images, {}, fused=False).tobytes()


@pytest.mark.parametrize("images", [1, 2])
def test_a_map_that_is_added_to_one_made_by_panels_is_whole(images: int, tmp_path: Path) -> None:
    """Of blocks without an expansion, whose inputs would else be a few rows at a time, and of panels by two threads."""
    table = (Path(minitl.__file__).parent / "networks" / "tables" / "digits_irb.toml").read_text("utf-8")
    stages = table[table.index("stages = [") : table.index("]\n\n[stem]")]
    block = '    { kind = "separable", kernel = 3, channels = 256 },\n'
    (tmp_path / "flat.toml").write_text(table.replace(stages, "stages = [\n" + 3 * block))
    x, limits = noise((images, 8, 8, 3), dtype="float32"), {"NEAR": 1, "WHOLE": 0, "LARGE": 0}
    plain = evaluated(str(tmp_path / "flat.toml"), x, {}, fused=False)
    for order in range(4):
        assert evaluated(str(tmp_path / "flat.toml"), x, limits, order=order).tobytes() == plain.tobytes()


def test_a_row_that_is_dropped_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    images, limits = noise((2, 40, 32, 3), dtype="float32"), {"NEAR": 1 << 10, "WHOLE": 0, "FEW": 0}
    right = evaluated("mobilenet_v2", images, limits).tobytes()
    read = Stage.rows_read
    monkeypatch.setattr(Stage, "rows_read", lambda stage, stop: max(1, read(stage, stop) - stage.depthwise))
    with suppress(minitl.errors.ValueRangeError):  # where what it reads instead is no number
        assert evaluated("mobilenet_v2", images, limits).tobytes() != right
