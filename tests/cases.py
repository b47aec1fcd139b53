"""Cases of every op: random shapes, attributes, wanted gradients and memory layouts, with the bound on their rounding.

`SPECS` has one entry for each op and backward rule. A `Spec` turns `Dims` (a handful of sizes,
drawn by Hypothesis or chosen by a test) into shapes and attributes; `make` fills them with
numbers. Inputs are multiples of 2^-10 below 16, so they are the same numbers in float32 and
float64, and they stay `MARGIN` away from the kinks of the op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minitl import ops
from minitl.arrays import Array, Shape
from minitl.ops import Op
from minitl.saved import Saved

MARGIN = 1 / 8
LAYOUTS = ("dense", "transposed", "sliced", "reversed")


@dataclass(frozen=True)
class Dims:
    """The sizes a case is made of; `flag` and `p` choose between variants of attributes."""

    n: int = 2
    h: int = 5
    w: int = 4
    c: int = 3
    o: int = 4
    k: int = 3
    stride: int = 1
    bias: bool = True
    flag: bool = False
    p: float = 0.25


@dataclass(frozen=True)
class Spec:
    """One op with one backward rule.

    `terms` bounds how many roundings stand between the inputs and any one number the op gives.
    `third` bounds the third derivative of <gy, y> along a line whose direction is at most 1 in
    every coordinate; None says that y is a polynomial of degree two at most along such a line.
    """

    op: Op
    shapes: Callable[[Dims], tuple[Shape, ...]]
    attrs: Callable[[Dims], dict[str, Any]] = lambda d: {}
    rule: str = ""
    terms: Callable[[Dims], int] = lambda d: 8
    kinks: tuple[float, ...] = ()
    third: Callable[[Case], float] | None = None
    bounds: Callable[[Case, float], Run] | None = None

    @property
    def name(self) -> str:
        return f"{self.op.name}-{self.rule}" if self.rule else self.op.name

    @property
    def exact(self) -> bool:
        return self.rule not in self.op.approximate


@dataclass(frozen=True)
class Case:
    """The arguments of one forward and one backward."""

    spec: Spec
    op: Op
    dims: Dims
    arrays: tuple[Array, ...]
    gy: Array
    needs: tuple[bool, ...]

    @property
    def keywords(self) -> dict[str, Any]:
        return {"attrs": self.spec.attrs(self.dims), "needs": self.needs}

    @property
    def params(self) -> tuple[Array, ...]:
        return self.arrays[self.op.activations :]

    @property
    def wantable(self) -> tuple[bool, ...]:
        """Which inputs the op can give a gradient for."""
        return tuple(name not in self.op.never for name in self.op.inputs[: len(self.arrays)])


@dataclass(frozen=True)
class Run:
    """What came of a case (or a bound on the rounding error of each of these)."""

    y: Array
    gradients: tuple[Array | None, ...]
    saved: Saved


def forward(case: Case) -> tuple[Array, Saved]:
    """Forward, on copies of what it writes."""
    arrays = [a.copy() if n in case.op.updates else a for a, n in zip(case.arrays, case.op.inputs, strict=False)]
    return case.op.forward(*arrays, **case.keywords, rule=case.spec.rule)


def backward(case: Case, saved: Saved) -> tuple[Array | None, ...]:
    return case.op.backward(saved, case.gy, **case.keywords, params=case.params)


def run(case: Case) -> Run:
    y, saved = forward(case)
    return Run(y, backward(case, saved), saved)


def everything(result: Run) -> dict[str, Array]:
    """All arrays of a run, by name."""
    gradients = {f"gradient {i}": g for i, g in enumerate(result.gradients) if g is not None}
    return {"y": result.y} | gradients | {f"kept {t}": b.array for t, b in result.saved.buffers.items()}


def wanting(case: Case, wanted: Sequence[int]) -> Case:
    """The same case, asking for the gradients of the inputs with these numbers only."""
    return replace(case, needs=tuple(i in wanted for i in range(len(case.arrays))))


# Numbers


def make(
    spec: Spec,
    dims: Dims,
    *,
    seed: int = 0,
    dtype: str = "float64",
    needs: Sequence[bool] | None = None,
    layouts: Sequence[str] = (),
) -> Case:
    """A case with random inputs; by default every gradient is wanted and every array dense."""
    rng = np.random.default_rng(seed)
    shapes, op = spec.shapes(dims), spec.op
    arrays = [_numbers(spec, name, shapes, i, rng) for i, name in enumerate(op.inputs[: len(shapes)])]
    gy = _grid(rng, op.output_shape(shapes, spec.attrs(dims)), -1, 1)
    *arrays, gy = (np.asarray(a, dtype if np.asarray(a).dtype.kind == "f" else None) for a in (*arrays, gy))
    *arrays, gy = (laid_out(a, kind) for a, kind in zip((*arrays, gy), layouts or ["dense"] * 9, strict=False))
    case = Case(spec, op, dims, tuple(arrays), gy, (False,) * len(arrays))
    wanted = case.wantable if needs is None else needs
    return replace(case, needs=tuple(a and b for a, b in zip(case.wantable, wanted, strict=False)))


def laid_out(array: Array, kind: str) -> Array:
    """The same values at other strides; what lies between them is NaN, or -99 among integers."""
    if kind == "dense" or array.ndim == 0:
        return array
    if kind == "transposed":
        return np.ascontiguousarray(array.T).T
    if kind == "reversed":
        backwards = (slice(None, None, -1),) * array.ndim
        return np.ascontiguousarray(array[backwards])[backwards]
    room = np.full([2 * extent + 1 for extent in array.shape], np.nan if array.dtype.kind == "f" else -99, array.dtype)
    view = room[(slice(1, None, 2),) * array.ndim]
    view[...] = array
    return view


def _grid(rng: np.random.Generator, shape: Shape, low: float, high: float) -> Array:
    """Multiples of 2^-10 from `low` to `high`."""
    return rng.integers(round(low * 1024), round(high * 1024), shape, endpoint=True) / 1024


def _numbers(spec: Spec, name: str, shapes: Sequence[Shape], number: int, rng: np.random.Generator) -> Array:
    shape = shapes[number]
    if name == "labels":
        return rng.integers(0, shapes[0][1], shape)
    if name.endswith("running_var"):
        return _grid(rng, shape, 0.5, 2)
    if name == "x" and spec.kinks:
        return _between_kinks(spec.kinks, rng, shape)
    values = _grid(rng, shape, -2, 2)
    if spec.op in (ops.batch_norm, ops.group_norm) and name == "x":  # neighbours far apart: no tiny variance
        apart = 2 if spec.op is ops.group_norm else 1
        return values / 4 + np.where(np.arange(values[..., 0].size) % 2, apart, -apart).reshape(*shape[:-1], 1)
    return values


def _between_kinks(kinks: Sequence[float], rng: np.random.Generator, shape: Shape) -> Array:
    edges = [kinks[0] - 3, *kinks, kinks[-1] + 3]
    pieces = [_grid(rng, shape, a + MARGIN, b - MARGIN) for a, b in pairwise(edges)]
    return np.choose(rng.integers(0, len(pieces), shape), pieces)


# Rounding errors


def gamma(terms: int, u: float) -> float:
    """Bound on the relative error of `terms` roundings (Higham 2002, lemma 3.1)."""
    return terms * u / (1 - terms * u)


def unit(dtype: str) -> float:
    """Unit roundoff."""
    return float(np.finfo(dtype).eps) / 2


def bounds(case: Case, u: float) -> Run:
    """How far y and the gradients may be from the exact ones, when rounded with unit roundoff u.

    Every number is a sum of products of the inputs, so the bound is gamma times the same sum of
    absolute values: the op itself, on the inputs' absolute values. (A frozen norm subtracts its
    mean, so there it is -|mean| that makes all terms positive.)
    """
    if case.spec.bounds:
        return case.spec.bounds(case, u)
    flipped = [-abs(a) if "mean" in n else abs(a) for a, n in zip(case.arrays, case.op.inputs, strict=False)]
    wide = tuple(a.astype(np.float64) if a.dtype.kind == "f" else a for a in flipped)
    result = run(replace(case, op=case.spec.op, arrays=wide, gy=abs(case.gy).astype(np.float64)))
    factor = gamma(case.spec.terms(case.dims), u)
    return Run(factor * result.y, tuple(None if g is None else factor * g for g in result.gradients), result.saved)


def _batch_norm_terms(case: Case) -> tuple[Array, ...]:
    x, weight, bias, *_ = (a.astype(np.float64) for a in case.arrays)
    eps = case.keywords["attrs"].get("eps", 1e-5)
    rows, gy = x.reshape(-1, x.shape[-1]), case.gy.astype(np.float64).reshape(-1, x.shape[-1])
    mean = rows.mean(axis=0)
    return rows, gy, weight, bias, mean, rows - mean, 1 / np.sqrt(((rows - mean) ** 2).mean(axis=0) + eps)


def _batch_norm_bounds(case: Case, u: float) -> Run:
    """First-order error analysis of batch_norm's formula, sums in float64; 1.1 covers the second order."""
    x, gy, weight, bias, mean, d, inv_std = _batch_norm_terms(case)
    m, v = len(x), gamma(len(x), unit("float64"))
    d_error = u * abs(mean) + v * abs(x).mean(axis=0) + u * abs(d)
    std_error = np.sqrt((d_error**2).mean(axis=0)) * inv_std + v + 4 * u  # of the standard deviation, relative
    x_hat = d * inv_std
    x_hat_error = inv_std * (d_error + abs(d) * (std_error + 2 * u))
    y_error = abs(weight) * x_hat_error + 3 * u * (abs(weight * x_hat) + abs(bias))
    scale, along = abs(weight) * inv_std, abs(gy * x_hat).sum(axis=0)
    along_error = (abs(gy) * x_hat_error).sum(axis=0) + v * along
    terms = scale * (abs(gy) + abs(gy).mean(axis=0) + along * abs(x_hat) / m)
    gx_error = terms * (std_error + 6 * u + v) + scale / m * (along_error * abs(x_hat) + along * x_hat_error)
    errors = gx_error.reshape(case.arrays[0].shape), along_error + u * along, (v + u) * abs(gy).sum(axis=0), None, None
    gradients = tuple(1.1 * e if need and e is not None else None for need, e in zip(case.needs, errors, strict=True))
    return Run(1.1 * y_error.reshape(case.arrays[0].shape), gradients, Saved())


def _group_norm_terms(case: Case) -> tuple[Array, ...]:
    """x, gy weight, x - mean and 1 / deviation, each (samples, positions, groups, channels of one)."""
    x, weight, _ = (a.astype(np.float64) for a in case.arrays)
    attrs = case.keywords["attrs"]
    shape = (len(x), x[0, ..., 0].size, attrs.get("groups", 1), -1)
    x, a, w = (np.broadcast_to(v, x.shape).reshape(shape) for v in (x, case.gy.astype(np.float64) * weight, weight))
    d = x - x.mean(axis=(1, 3), keepdims=True)
    return x, a, w, d, 1 / np.sqrt((d**2).mean(axis=(1, 3), keepdims=True) + attrs.get("eps", 1e-5))


def _group_norm_bounds(case: Case, u: float) -> Run:
    """As _batch_norm_bounds, with sums over a group, whose products are rounded before they are summed."""
    x, a, w, d, inv_std = _group_norm_terms(case)
    axes: dict[str, Any] = {"axis": (1, 3), "keepdims": True}
    v = gamma(x.shape[1] + x.shape[3], unit("float64")) + u  # positions are summed first, then channels
    x_hat = d * inv_std
    d_error = v * abs(x).mean(**axes) + u * (abs(x.mean(**axes)) + abs(d))
    std_error = np.sqrt((d_error**2).mean(**axes)) * inv_std + v + 4 * u
    x_hat_error = inv_std * (d_error + abs(d) * (std_error + 2 * u))
    along = abs(a * x_hat).mean(**axes)
    along_error = (abs(a) * x_hat_error).mean(**axes) + (v + 2 * u) * along
    terms = inv_std * (abs(a) + abs(a).mean(**axes) + along * abs(x_hat))
    gx_error = terms * (std_error + 8 * u + v) + inv_std * (along_error * abs(x_hat) + along * x_hat_error)
    shape, gy = case.gy.shape, abs(case.gy.astype(np.float64))
    bias = abs(case.arrays[2].astype(np.float64))
    y_error = (abs(w) * (x_hat_error + 3 * u * abs(x_hat))).reshape(shape) + 3 * u * bias
    of_x_hat = (x_hat_error + (u + v * len(x)) * abs(x_hat)).reshape(shape)
    everywhere: dict[str, Any] = {"axis": (0, 1, 2)}
    gw_error = (gy * of_x_hat).sum(**everywhere) + 2 * u * (gy * abs(x_hat).reshape(shape)).sum(**everywhere)
    gb_error = (gamma(gy[..., 0].size, unit("float64")) + u) * gy.sum(**everywhere)
    errors = gx_error.reshape(shape), gw_error, gb_error
    return Run(1.1 * y_error, tuple(1.1 * e if n else None for n, e in zip(case.needs, errors, strict=True)), Saved())


def _group_norm_third(case: Case) -> float:
    """As _batch_norm_third, a group's statistics in place of a channel's."""
    _, _, w, d, inv_std = _group_norm_terms(case)
    gy = abs(case.gy.astype(np.float64)).reshape(w.shape)
    third, second = 24 * inv_std**3 * (abs(d * inv_std) + 1), 4 * inv_std**2 * (abs(d * inv_std) + 1)
    return float((gy * (abs(w) * third + 3 * second)).sum())


def _batch_norm_third(case: Case) -> float:
    """With q = var + eps, sigma = sqrt q and |v| <= 1: |q'| <= 2 sigma, |q''| <= 2, so that q^(-1/2) has derivatives of
    at most 1, 4, 24 times sigma^-2, sigma^-3, sigma^-4; |d'| <= 2, and y = gamma d q^(-1/2) + beta by Leibniz.
    """
    _, gy, weight, _, _, d, inv_std = _batch_norm_terms(case)
    x_hat_third, x_hat_second = 24 * inv_std**3 * (abs(d * inv_std) + 1), 4 * inv_std**2 * (abs(d * inv_std) + 1)
    return float((abs(gy) * (abs(weight) * x_hat_third + 3 * x_hat_second)).sum())


def _cross_entropy_bounds(case: Case, u: float) -> Run:
    """Each exponential is off by u |z - max z| from its argument and 6 u of its own (NumPy's is good to 3 ulp)."""
    z, labels = case.arrays[0].astype(np.float64), case.arrays[1]
    n, k = z.shape
    d = z - z.max(axis=1, keepdims=True)
    far, p = abs(d).max(), np.exp(d) / np.exp(d).sum(axis=1, keepdims=True)
    total_error = (far + 6 + k) * u
    loss_error = total_error + (2 * far + (n + 4) * (far + np.log(k))) * u
    onehot = labels[:, None] == np.arange(k)
    gz_error = abs(case.gy) / n * (p * (2 * total_error + u) + 3 * u * (p + onehot))
    return Run(np.array(1.1 * loss_error), (1.1 * gz_error if case.needs[0] else None, None), Saved())


def _from_output_bounds(case: Case, u: float) -> Run:
    """A slope sqrt(r) / 6 with r = 9 + 24 y is off by at most sqrt(error of r) / 6, as r may be 0."""
    result = bounds(replace(case, spec=replace(case.spec, bounds=None, rule=case.op.rules[0])), u)
    if case.op is not ops.hard_swish or not case.needs[0]:
        return result
    y = abs(forward(replace(case, op=case.spec.op))[0]).astype(np.float64)
    gx = result.gradients[0]
    assert gx is not None
    return replace(result, gradients=(gx + abs(case.gy) * np.sqrt(8 * u * (9 + 24 * y)) / 6,))


# The table

KINKS = {
    ops.relu: (0,),
    ops.relu6: (0, 6),
    ops.hard_swish: (-3, 0, 3),
    ops.silu: (0,),  # where the sign rule jumps
    ops.hard_sigmoid: (-3, 3),
    ops.sigmoid: (),
}


SMOOTH = (ops.silu, ops.sigmoid)


def _map(d: Dims) -> Shape:
    return d.n, d.h, d.w, d.c


def _values(d: Dims) -> tuple[Shape, ...]:
    return ((d.n, d.c) if d.flag else _map(d),)


def _pair(d: Dims) -> tuple[Shape, ...]:
    return (() if d.flag else _map(d),) * 2


def _conv(d: Dims) -> tuple[Shape, ...]:
    return _map(d), (d.o, d.c, d.k, d.k), *([(d.o,)] * d.bias)


def _depthwise(d: Dims) -> tuple[Shape, ...]:
    return _map(d), (d.c, 1, d.k, d.k), *([(d.c,)] * d.bias)


def _grouped(d: Dims) -> tuple[Shape, ...]:
    groups = d.stride + 1
    return (d.n, d.h, d.w, groups * d.c), (groups * d.o, d.c, d.k, d.k)


def _pointwise(d: Dims) -> tuple[Shape, ...]:
    return _map(d), (d.o, d.c, 1, 1), *([(d.o,)] * d.bias)


def _linear(d: Dims) -> tuple[Shape, ...]:
    return (d.n, d.c), (d.o, d.c), *([(d.o,)] * d.bias)


def _norm(d: Dims) -> tuple[Shape, ...]:
    n = 2 if d.n * d.h * d.w == 1 else d.n
    return (n, d.h, d.w, d.c), *([(d.c,)] * 4)


def _most(d: Dims) -> int:
    """Terms of the longest sum of a convolution, a norm or a pool, and a few roundings around it."""
    return max(d.k * d.k * max(d.c, d.o), d.n * d.h * d.w + 1) + 12


def _stride(d: Dims) -> dict[str, Any]:
    return {"stride": d.stride} if d.stride != 1 or d.flag else {}


def _conv_attrs(d: Dims) -> dict[str, Any]:
    """Some cases are padded unevenly: as far as the kernel allows on one side, not at all on the other."""
    uneven = {"padding": (d.k - 1, 0, 0, d.k - 1)} if d.flag and d.k in (3, 7) else {}
    return {**_stride(d), **uneven}


def _eps(d: Dims) -> dict[str, Any]:
    return {"eps": 1e-3} if d.flag else {}


SPECS = [
    Spec(ops.conv, _conv, _conv_attrs, terms=_most),
    Spec(ops.depthwise_conv, _depthwise, _conv_attrs, terms=_most),
    Spec(ops.pointwise_conv, _pointwise, terms=_most),
    Spec(ops.linear, _linear, terms=_most),
    Spec(
        ops.batch_norm,
        _norm,
        lambda d: {"eps": 1e-3, "momentum": 0.01} if d.flag else {},
        third=_batch_norm_third,
        bounds=_batch_norm_bounds,
    ),
    Spec(ops.frozen_norm, _norm, _eps, terms=_most),
    *(
        Spec(
            op,
            _values,
            rule=rule,
            kinks=kinks,
            bounds=_from_output_bounds if rule == "output" else None,
            terms=lambda d, op=op: 32 if op in SMOOTH else 8,
            third=(lambda case: float(abs(case.gy).sum()) / 2) if op in SMOOTH else None,  # none is above 1/2
        )
        for op, kinks in KINKS.items()
        for rule in op.rules
    ),
    Spec(
        ops.gated_conv,
        lambda d: (_map(d), (d.n, 1, 1, d.c), (d.o, d.c, 1, 1)),
        terms=_most,
        third=lambda case: 6 * case.dims.c * float(abs(case.gy).sum()),  # of a product of three
    ),
    Spec(ops.scale, lambda d: (_map(d), (d.n, 1, 1, d.c)), terms=_most),
    Spec(ops.global_avg_pool, lambda d: (_map(d),), lambda d: {"keepdims": d.flag}, terms=_most),
    Spec(ops.add, _pair),
    Spec(ops.add_channels, lambda d: (_map(d), (d.n, 1, 1, d.c)), terms=_most),
    Spec(ops.multiply, _pair),
    Spec(ops.avg_pool, lambda d: ((d.n, d.h + d.k, d.w + d.k, d.c),), lambda d: {"window": min(d.k, 4)}, terms=_most),
    Spec(ops.bilinear_up, lambda d: (_map(d),), lambda d: {"size": (d.h * d.stride, d.w + d.k)}, terms=_most),
    Spec(ops.grouped_conv, _grouped, lambda d: {"groups": d.stride + 1, **_conv_attrs(d)}, terms=_most),
    Spec(
        ops.group_norm,
        lambda d: ((d.n, d.h, d.w + 1, 2 * d.c), (2 * d.c,), (2 * d.c,)),
        lambda d: {"groups": 2 if d.flag else d.c, **_eps(d)},
        third=_group_norm_third,
        bounds=_group_norm_bounds,
    ),
    Spec(ops.dropout, _values, lambda d: {"p": d.p, "seed": d.c}),
    Spec(
        ops.cross_entropy,
        lambda d: ((d.n, d.c + 1), (d.n,)),
        bounds=_cross_entropy_bounds,
        third=lambda case: 8 * float(abs(case.gy)),  # a third central moment of numbers at most 2 from their mean
    ),
]


NAMES = {spec.name: spec for spec in SPECS}


# Strategies


WINDOWS = (  # kernel, stride and bias; the oracle has cases of others
    (1, 2, False),
    (3, 1, True),
    (3, 1, False),
    (3, 2, True),
    (3, 2, False),
    (5, 1, True),
    (7, 2, True),
)


@st.composite
def dims(draw: st.DrawFn) -> Dims:
    """Small sizes with every irregularity: batches of one, maps of one row or column, odd channels.

    A kernel (compiled once for each dtype, window, padding and bias, and some numbers of channels) takes longer to
    compile than to run on thousands of cases, so these are paired off, not multiplied out.
    """
    extents = st.sampled_from([1, 2, 3, 5, 8])
    k, stride, bias = draw(st.sampled_from(WINDOWS))
    c, o = draw(st.sampled_from([(1, 1), (2, 7), (3, 9), (5, 2), (7, 3), (9, 5)]))
    return Dims(
        n=draw(st.integers(1, 3)),
        h=draw(extents),
        w=draw(extents),
        c=c,
        o=o,
        k=k,
        stride=stride,
        bias=bias,
        flag=draw(st.booleans()),
        p=draw(st.sampled_from([0.0, 0.25, 0.9])),
    )


@st.composite
def cases(
    draw: st.DrawFn, spec: Spec, dtypes: Sequence[str] = ("float64",), layouts: Sequence[str] = ("dense",)
) -> Case:
    """Cases of one spec, with any subset of its gradients wanted."""
    return make(
        spec,
        draw(dims()),
        seed=draw(st.integers(0, 2**16)),
        dtype=draw(st.sampled_from(dtypes)),
        needs=draw(st.lists(st.booleans(), min_size=6, max_size=6)),
        layouts=draw(st.lists(st.sampled_from(layouts), min_size=9, max_size=9)),
    )
