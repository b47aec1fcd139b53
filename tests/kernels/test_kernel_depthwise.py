"""The fast depthwise convolution beside the plain loops, on every kind of kernel, stride and map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import gamma, unit

from minitl.arrays import Array
from minitl.kernels import depthwise, depthwise_ordered

MAPS = [(1, 1), (1, 9), (2, 5), (3, 3), (4, 1), (4, 4), (5, 2), (7, 7), (8, 13), (9, 30), (11, 6)]
NAMES = ("forward", "grad_input", "grad_weight")


def operands(
    height: int, width: int, channels: int, kernel: int, stride: int, dtype: str, samples: int = 3
) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    y = -(-height // stride), -(-width // stride)
    shapes = {"x": (samples, height, width, channels), "w": (kernel, kernel, channels), "gy": (samples, *y, channels)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def results(module: Any, arrays: dict[str, Array], stride: int) -> dict[str, Array]:
    x, w, gy = arrays.values()
    given = {"forward": (x, w, gy), "grad_input": (gy, w, x), "grad_weight": (x, gy, w)}
    outs = {name: np.full_like(like, np.nan) for name, (*_, like) in given.items()}
    for name, (first, second, _) in given.items():
        getattr(module, name)(first, second, stride, outs[name])
    return outs


def check_near(got: dict[str, Array], arrays: dict[str, Array], stride: int) -> None:
    """Both are sums of the same products, each within gamma of the exact sum (Higham 2002, 3.5)."""
    expected = results(depthwise_ordered, arrays, stride)
    sizes = results(depthwise_ordered, {name: abs(a).astype(np.float64) for name, a in arrays.items()}, stride)
    terms = arrays["w"].shape[0] ** 2 + arrays["gy"][..., 0].size
    for name in NAMES:
        bound = 2 * gamma(terms, unit(str(got[name].dtype))) * sizes[name]
        assert (abs(got[name] - expected[name].astype(np.float64)) <= bound).all(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("stride", [1, 2])
def test_fast_and_plain_agree(kernel: int, stride: int, dtype: str) -> None:
    for height, width in MAPS:
        for channels in (1, 9, 130, 600):
            arrays = operands(height, width, channels, kernel, stride, dtype)
            check_near(results(depthwise, arrays, stride), arrays, stride)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_a_map_of_many_passes(kernel: int) -> None:
    arrays = operands(33, 70, 24, kernel, 1, "float32")
    check_near(results(depthwise, arrays, 1), arrays, 1)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_it_runs_without_the_compiler(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_correlate", "_grad_weight"):
        monkeypatch.setattr(depthwise, name, getattr(depthwise, name).__wrapped__)
    arrays = operands(6, 5, 2, kernel, 1, "float64")
    check_near(results(depthwise, arrays, 1), arrays, 1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["forward", "grad_input"])
def test_a_sample_does_not_depend_on_its_company(name: str, stride: int) -> None:
    arrays = operands(14, 14, 200, 5, stride, "float32", samples=5)
    together = results(depthwise, arrays, stride)[name]
    for n in range(5):
        own = {key: a if key == "w" else a[n : n + 1] for key, a in arrays.items()}
        assert (results(depthwise, own, stride)[name] == together[n : n + 1]).all()
