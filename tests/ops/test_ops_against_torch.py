"""Every op against PyTorch in float64: values, gradients and running statistics.

`pytest -s` on this file prints one line an op, with the largest absolute difference seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import NAMES, WINDOWS, Case, Dims, Run, bounds, everything, gamma, make, run, unit
from checks import check_within

from minitl import ops
from minitl.arrays import Array
from minitl.bits import unpack

torch = pytest.importorskip("torch")
F = torch.nn.functional
CASES = 25


def nchw(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Any) -> Any:
    return x.permute(0, 2, 3, 1)


def convolution(x: Any, w: Any, b: Any = None, *, stride: int = 1, padding: Any = None, **_: Any) -> Any:
    """Any k x k convolution: filters of one input channel are depthwise ones if there is one per channel."""
    groups = x.shape[3] // w.shape[1]
    above, below, left, right = padding or ((w.shape[2] - 1) // 2,) * 4
    return nhwc(F.conv2d(F.pad(nchw(x), (left, right, above, below)), w, b, stride=stride, groups=groups))


def norm(
    x: Any, w: Any, b: Any, mean: Any, var: Any, *, training: bool, eps: float = 1e-5, momentum: float = 0.1
) -> Any:
    return nhwc(F.batch_norm(nchw(x), mean, var, w, b, training=training, momentum=momentum, eps=eps))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "conv": convolution,
    "depthwise_conv": convolution,
    "pointwise_conv": convolution,
    "linear": lambda x, w, b=None, **_: F.linear(x, w, b),
    "batch_norm": lambda *arrays, **attrs: norm(*arrays, training=True, **attrs),
    "frozen_norm": lambda *arrays, **attrs: norm(*arrays, training=False, **attrs),
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "hard_sigmoid": lambda x: F.relu6(x + 3) / 6,  # F.hardsigmoid's backward has 1/6 rounded to float32
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "gated_conv": lambda x, gate, w, **_: convolution(x * gate, w),
    "scale": lambda x, gate: x * gate,
    "global_avg_pool": lambda x, keepdims: x.mean(dim=(1, 2), keepdim=keepdims),
    "add": lambda a, b: a + b,
    "add_channels": lambda x, v: x + v,
    "multiply": lambda a, b: a * b,
    "avg_pool": lambda x, window: nhwc(F.avg_pool2d(nchw(x), window)),
    "bilinear_up": lambda x, size: nhwc(F.interpolate(nchw(x), size=size, mode="bilinear")),
    "grouped_conv": convolution,
    "group_norm": lambda x, w, b, *, groups, eps=1e-5: nhwc(F.group_norm(nchw(x), groups, w, b, eps)),
    "dropout": lambda x, p, seed, mask: x * mask / (1 - p),
    "cross_entropy": F.cross_entropy,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reference(case: Case, saved: Any) -> tuple[Run, list[Array]]:
    """What PyTorch gives, and the arrays it was given (running statistics changed)."""
    leaves = [
        torch.tensor(a, requires_grad=need and a.dtype.kind == "f")
        for a, need in zip(case.arrays, case.needs, strict=True)
    ]
    attrs = dict(case.keywords["attrs"])
    if case.op is ops.dropout:  # the coins are minitl's own
        attrs["mask"] = torch.tensor(unpack(saved["mask"], 1, case.arrays[0].shape))
    y = FUNCTIONS[case.op.name](*leaves, **attrs)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, torch.tensor(case.gy)) if wanted else ())
    gradients = tuple(next(found).numpy() if need else None for need in case.needs)
    return Run(y.detach().numpy(), gradients, type(saved)()), [leaf.detach().numpy() for leaf in leaves]


def random_dims(rng: np.random.Generator) -> Dims:
    n, h, w, c, o = rng.integers(1, 9, 5)
    window, flag = rng.integers(len(WINDOWS)), rng.integers(2)
    return Dims(int(n), int(h), int(w), int(c) * 3 - 2, int(o) * 2 - 1, *WINDOWS[window], bool(flag))


def off_the_grid(case: Case, rng: np.random.Generator) -> Case:
    """The same case with numbers of 53 bits, so that sums and products do round."""
    *arrays, gy = (
        a * (1 + 1e-4 * rng.standard_normal(a.shape)) if a.dtype.kind == "f" else a for a in (*case.arrays, case.gy)
    )
    return replace(case, arrays=tuple(arrays), gy=np.asarray(gy))


def largest_difference(name: str) -> float:
    """The largest absolute difference from PyTorch over random cases; both stay within their rounding."""
    rng, largest = np.random.default_rng(sum(map(ord, name))), 0.0
    for seed in range(CASES):
        case = off_the_grid(make(NAMES[name], random_dims(rng), seed=seed), rng)
        result = run(case)
        expected, after = reference(case, result.saved)
        check_within(result, expected, bounds(case, 2 * unit("float64")))  # each is within its bound of the exact one
        expected = Run(expected.y, expected.gradients, type(result.saved)())
        differences = [abs(everything(result)[part] - array).max() for part, array in everything(expected).items()]
        if case.op is ops.batch_norm:
            differences.append(running_statistics_difference(case, after))
        largest = max(largest, *map(float, differences))
    return largest


def running_statistics_difference(case: Case, after: list[Array]) -> float:
    """Of the moved mean and variance; a sum of M terms (for the variance twice) of at most 4 lies between them."""
    mean, var = case.arrays[3].copy(), case.arrays[4].copy()
    case.op.forward(*case.arrays[:3], mean, var, **case.keywords)
    difference = max(abs(mean - after[3]).max(), abs(var - after[4]).max())
    m = case.arrays[0][..., 0].size
    assert not np.array_equal(mean, case.arrays[3])
    assert difference <= 2 * gamma(2 * m + 10, unit("float64")) * m / (m - 1) * 4
    return float(difference)


@pytest.mark.parametrize("name", [name for name, spec in NAMES.items() if spec.exact])
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    print(f"\n{name:28} {largest_difference(name):.1e}", end="")
