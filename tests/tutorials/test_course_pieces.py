"""The pieces that later tutorials use are minitl's operations, and what the solutions of 1 to 5 say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from course import pieces
from course.differences import check_gradient
from course_sources import ALL, functions_of, solution

import minitl

Array = Any
SHAPE = (2, 7, 5, 9)


def solved(exercise: str) -> tuple[Any, ...]:
    call = ALL[exercise]
    return functions_of(solution(call), call.functions, f"<{exercise}>")


def norm(rng: np.random.Generator, channels: int = 9) -> dict[str, Array]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"n.{name}": rng.uniform(0.5, 1.5, channels) for name in names}


def close(a: Array, b: Array) -> bool:
    return bool(abs(a - b).max() < 1e-11)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
def test_depthwise(k: int, stride: int) -> None:
    rng = np.random.default_rng(k)
    x, w, kept, grads = rng.standard_normal(SHAPE), rng.standard_normal((9, 1, k, k)), {}, {}
    y = pieces.depthwise(x, {"d.weight": w}, "d", kept, stride)
    gy = rng.standard_normal(y.shape)
    gx = pieces.depthwise_backward(kept, gy, {"d.weight": w}, "d", grads, stride)
    op, needs, attrs = minitl.ops.depthwise_conv, (True, True), {"stride": stride}
    theirs, saved = op.forward(x, w, attrs=attrs, needs=needs)
    assert close(y, theirs)
    results = [op.backward(saved, gy, attrs=attrs, needs=needs, params=(w,))]
    results.append(solved("3b")[0](x, w, gy) if stride == 1 else solved("3c")[1](x, w, gy))
    for by_gx, by_gw in results:
        assert close(gx, by_gx)
        assert close(grads["d.weight"], by_gw)


def test_pointwise() -> None:
    rng = np.random.default_rng(0)
    x, w, kept, grads = rng.standard_normal(SHAPE), rng.standard_normal((4, 9, 1, 1)), {}, {}
    y = pieces.pointwise(x, {"p.weight": w}, "p", kept)
    gy = rng.standard_normal(y.shape)
    gx = pieces.pointwise_backward(kept, gy, {"p.weight": w}, "p", grads)
    theirs, saved = minitl.ops.pointwise_conv.forward(x, w, needs=(True, True))
    assert close(y, theirs)
    for by_gx, by_gw in (
        minitl.ops.pointwise_conv.backward(saved, gy, needs=(True, True), params=(w,)),
        solved("3a")[0]({"x": x}, gy, w),
    ):
        assert close(gx, by_gx)
        assert close(grads["p.weight"], by_gw)


def test_norms() -> None:
    rng = np.random.default_rng(0)
    x, gy, p, grads = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE), norm(rng), {}
    kept: dict[str, Array] = {}
    pieces.batch_norm(x, p, "n", kept)
    gx = pieces.batch_norm_backward(kept, gy, p, "n", grads)
    plain = {name[2:]: array for name, array in kept.items()}
    by_gx, ggamma, gbeta = solved("4a")[0](plain, gy, p["n.weight"])
    assert close(gx, by_gx)
    assert close(grads["n.weight"], ggamma)
    assert close(grads["n.bias"], gbeta)

    def forward(x: Array, kept: dict[str, Array]) -> Array:
        return pieces.batch_norm(x, p, "n", kept)

    assert check_gradient(forward, lambda kept, gy: pieces.batch_norm_backward(kept, gy, p, "n", {}), x, rng)


def test_frozen_norm() -> None:
    rng = np.random.default_rng(0)
    x, gy, p, kept, grads = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE), norm(rng), {}, {}
    plain = {name[2:]: array for name, array in p.items()}
    forward, backward = solved("4b")
    assert close(pieces.frozen_norm(x, p, "n", kept), forward(x, plain, {}))
    gx, gbeta = backward({}, gy, plain)
    assert close(pieces.frozen_norm_backward(kept, gy, p, "n", grads), gx)
    assert close(grads["n.bias"], gbeta)
    assert kept == {}


@pytest.mark.parametrize("bits", [1, 2])
def test_packing(bits: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**bits, SHAPE)
    packed = pieces.pack(codes, bits)
    assert (pieces.unpack(packed, SHAPE, bits) == codes).all()
    if bits == 1:
        pack, unpack, packed_bytes = solved("1c")
        assert (pack(codes.reshape(-1, 9).astype(bool)) == packed).all()
        assert (unpack(packed, 70) == codes.reshape(-1, 9)).all()
        assert packed_bytes(70, 9) == packed.nbytes


@pytest.mark.parametrize("kind", ["relu6", "hard_swish"])
def test_activations(kind: str) -> None:
    rng, kept = np.random.default_rng(0), {}
    x, gy = 4 * rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    y = pieces.activation(x, "a", kept, kind, False)
    op = getattr(minitl.ops, kind)
    theirs, saved = op.forward(x, needs=(True,))
    assert close(y, theirs)
    assert close(pieces.activation_backward(kept, gy, "a"), op.backward(saved, gy, needs=(True,))[0])
    assert sum(array.nbytes for array in kept.values()) == saved.nbytes
