"""The block by hand is right: its exact backward is the slope of its forward, and tutorial 6 shows the same code."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import render
from course.block import backward, forward
from course.pieces import random_block

SWITCHES = {
    "vanilla": {"shift_only": False, "signs": False},
    "shift only": {"shift_only": True, "signs": False},
    "signs only": {"shift_only": False, "signs": True},
    "mobiletl": {"shift_only": True, "signs": True},
}
BLOCKS = {  # batch, height, width, channels, expanded, outputs, kernel, stride
    "residual": (2, 7, 5, 3, 11, 3, 3, 1),
    "no residual": (3, 3, 5, 4, 9, 5, 5, 1),
    "stride 2": (2, 5, 7, 3, 11, 3, 3, 2),
}
EVERY_BLOCK = pytest.mark.parametrize("sizes", BLOCKS.values(), ids=list(BLOCKS))
EVERY_KIND = pytest.mark.parametrize("kind", ["relu6", "hard_swish"])


def draw(sizes: tuple[int, ...], seed: int, dtype: str = "float64") -> tuple[Any, Any, int]:
    """Parameters, input and stride of a random block."""
    batch, height, width, channels, expanded, outputs, kernel, stride = sizes
    rng = np.random.default_rng(seed)
    p = {name: a.astype(dtype) for name, a in random_block(rng, channels, expanded, outputs, kernel).items()}
    return p, rng.standard_normal((batch, height, width, channels)).astype(dtype), stride


@pytest.mark.parametrize("seed", [0, 1])
@EVERY_BLOCK
@EVERY_KIND
@pytest.mark.parametrize("method", ["vanilla", "shift only"])
def test_exact_backward_is_the_slope_of_the_forward(method: str, kind: str, sizes: tuple[int, ...], seed: int) -> None:
    """By central differences, for the input and every parameter on its own, along a random direction."""
    p, x, stride = draw(sizes, seed)
    rng, d = np.random.default_rng(100 + seed), 1e-6

    def run(values: dict[str, Any]) -> Any:
        rest = dict(values)
        return forward(rest.pop("x"), rest, kind=kind, stride=stride, **SWITCHES[method])

    values = {**p, "x": x}
    y, kept = run(values)
    gy = rng.standard_normal(y.shape)
    for name, grad in backward(kept, gy, p, stride).items():
        assert grad.shape == values[name].shape
        t = rng.standard_normal(grad.shape)
        high, low = ((gy * run({**values, name: values[name] + s * t})[0]).sum() for s in (d, -d))
        scale = np.sqrt((grad**2).sum() * (t**2).sum())  # the slope itself may be near 0 by chance
        assert abs((high - low) / (2 * d) - (grad * t).sum()) < 1e-7 * scale, name


@EVERY_BLOCK
@EVERY_KIND
@pytest.mark.parametrize("method", SWITCHES)
def test_what_is_trained_and_in_float32_stays_there(method: str, kind: str, sizes: tuple[int, ...]) -> None:
    p, x, stride = draw(sizes, 0, "float32")
    y, kept = forward(x, p, kind=kind, stride=stride, **SWITCHES[method])
    grads = backward(kept, np.ones_like(y), p, stride)
    frozen = {name for name in p if "running" in name}
    if SWITCHES[method]["shift_only"]:
        frozen |= {"expand_norm.weight", "depthwise_norm.weight"}
    assert set(grads) == set(p) - frozen | {"x"}
    assert {a.dtype.name for a in (y, *grads.values())} == {"float32"}
    assert {a.dtype.name for a in kept.values()} <= {"float32", "uint8"}


@cache
def shown() -> dict[str, Any]:
    """What tutorial 6 defines before it first runs anything."""
    namespace: dict[str, Any] = {}
    for part in render.cells((render.HERE / "06_the_block.py").read_text(encoding="utf-8")):
        if not part.prose and "backward" not in namespace:
            exec(part.text, namespace)
    return namespace


@EVERY_KIND
@pytest.mark.parametrize("method", SWITCHES)
def test_the_tutorial_shows_the_same_block(method: str, kind: str) -> None:
    p, x, _ = draw(BLOCKS["residual"], 3)
    y, kept = forward(x, p, kind=kind, **SWITCHES[method])
    theirs, held = shown()["forward"](x, p, kind=kind, **SWITCHES[method])
    ours, others = backward(kept, y, p), shown()["backward"](held, theirs, p)
    for one, other in [({"y": y}, {"y": theirs}), (kept, held), (ours, others)]:
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
