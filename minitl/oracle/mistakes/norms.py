"""Mistakes in batch norm and frozen norm: other statistics, another eps, another scale, another backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minitl.arrays import Array, positions
from minitl.oracle.mistakes.tape import Call, Mistake

BATCH, FROZEN = ("batch_norm",), ("frozen_norm",)
BOTH = BATCH + FROZEN
EPS = ((10.0, "10x"), (100.0, "100x"), (0.1, "1/10"), (0.01, "1/100"))


@dataclass(frozen=True)
class _Norm:
    """How a norm is computed; the defaults are the right way for either op."""

    running: bool | None = None  # running statistics instead of the batch's; None: those of the op
    constant: bool | None = None  # in backward, statistics do not depend on x
    unbiased: bool = False
    inv_std: Callable[[Array, float], Array] = lambda var, eps: 1 / np.sqrt(var + eps)
    scale: Callable[[Array], Array] = lambda gamma: gamma
    shift: Callable[[Array], Array] = lambda beta: beta

    def forward(self, c: Call) -> Array:
        """y = scale x_hat + shift."""
        x_hat, _ = self.normalised(c)
        return np.asarray(self.scale(c.arrays[1]) * x_hat + self.shift(c.arrays[2]))

    def normalised(self, c: Call) -> tuple[Array, Array]:
        """x_hat and inv_std."""
        _, _, _, mean, var = c.arrays
        if not _either(self.running, c):
            mean = c.x.mean(axis=(0, 1, 2))
            var = np.square(c.x - mean).sum(axis=(0, 1, 2)) / (positions(c.x.shape) - self.unbiased)
        inv_std = self.inv_std(var, c.attrs.get("eps", 1e-5))
        return (c.x - mean) * inv_std, inv_std

    def backward(self, c: Call, gy: Array) -> tuple[Array | None, ...]:
        """The usual formulas, with this norm's x_hat and inv_std."""
        x_hat, inv_std = self.normalised(c)
        m, total, along = positions(gy.shape), gy.sum(axis=(0, 1, 2)), (gy * x_hat).sum(axis=(0, 1, 2))
        centred = gy if _either(self.constant, c) else gy - total / m - x_hat * (along / m)
        return self.scale(c.arrays[1]) * inv_std * centred, along, total, None, None


def _either(chosen: bool | None, c: Call) -> bool:
    return c.op.name == "frozen_norm" if chosen is None else chosen


def mistakes() -> Iterator[Mistake]:
    """All of them."""
    for factor, text in EPS:
        yield _mistake(f"eps {text}", BOTH, _Norm(inv_std=_scaled_eps(factor)))
    yield _mistake("eps left out", BOTH, _Norm(inv_std=_scaled_eps(0)))
    yield _mistake("eps rounded to float32", BOTH, _Norm(inv_std=_eps_rounded))
    yield _mistake("eps outside the square root", BOTH, _Norm(inv_std=_eps_outside))
    yield _mistake("|gamma|: the scale's sign is lost", BOTH, _Norm(scale=np.abs))
    yield _mistake("gamma left out", BOTH, _Norm(scale=np.ones_like))
    yield _mistake("bias left out", BOTH, _Norm(shift=np.zeros_like))
    yield _mistake("unbiased normalisation: divide by M, not M - 1", BATCH, _Norm(unbiased=True))
    yield _mistake("frozen statistics where they are the batch's", BATCH, _Norm(running=True, constant=True))
    for constant in (False, True):
        text = "batch statistics where they are frozen"
        yield _mistake(text, FROZEN, _Norm(running=False, constant=constant))
    yield Mistake("statistics taken as constants in backward", BATCH, None, _Norm(constant=True).backward)
    yield from _backward_alone()
    yield from _of_groups()


def _backward_alone() -> Iterator[Mistake]:
    """The usual formulas of the gradients with something left out, or something else in its place."""
    for cause, of_x in {
        "the x_hat term of the input's gradient left out": lambda g, x_hat, total, along, m: g - total / m,
        "the sums in the input's gradient not divided by M": lambda g, x_hat, total, along, m: (
            g - total - x_hat * along
        ),
        "the sums in the input's gradient divided by M - 1, where M is right": lambda g, x_hat, total, along, m: (
            g - total / (m - 1) - x_hat * (along / (m - 1))
        ),
    }.items():
        yield Mistake(cause, BATCH, None, partial(_with_centred, of_x))
    for cause, by in {
        "the scale's gradient from x - mean: inv_std forgotten": lambda c, x_hat, inv_std: x_hat / inv_std,
        "the scale's gradient from x, where x_hat is right": lambda c, x_hat, inv_std: c.x,
    }.items():
        yield Mistake(cause, BATCH, None, partial(_scale_from, by))
    for cause, of_gx in {
        "the standard deviation in place of its inverse": lambda c, gx, inv_std: gx / inv_std**2,
        "inv_std left out of the input's gradient": lambda c, gx, inv_std: gx / inv_std,
        "the norm's scale, gamma inv_std, left out of the input's gradient": lambda c, gx, inv_std: (
            gx / (c.arrays[1] * inv_std)
        ),
    }.items():
        for ops in (BOTH, FROZEN, BATCH):  # a block's inner norms and its last one are often different code
            yield Mistake(cause, ops, None, partial(_with_gx, of_gx))


OfX = Callable[[Array, Array, Array, Array, int], Array]  # gy, x_hat, their sums, M


def _with_centred(of_x: OfX, c: Call, gy: Array) -> tuple[Array | None, ...]:
    x_hat, inv_std = _Norm().normalised(c)
    total, along = gy.sum(axis=(0, 1, 2)), (gy * x_hat).sum(axis=(0, 1, 2))
    gx = c.arrays[1] * inv_std * of_x(gy, x_hat, total, along, positions(gy.shape))
    return gx, *_Norm().backward(c, gy)[1:]


def _scale_from(by: Callable[[Call, Array, Array], Array], c: Call, gy: Array) -> tuple[Array | None, ...]:
    gx, _, *rest = _Norm().backward(c, gy)
    return gx, (gy * by(c, *_Norm().normalised(c))).sum(axis=(0, 1, 2)), *rest


def _with_gx(of_gx: Callable[[Call, Array, Array], Array], c: Call, gy: Array) -> tuple[Array | None, ...]:
    gx, *rest = _Norm().backward(c, gy)
    _, inv_std = _Norm().normalised(c)
    return of_gx(c, np.asarray(gx), inv_std), *rest


def _of_groups() -> Iterator[Mistake]:
    """Those of group norm: the op itself, with other attributes or parameters."""
    of = ("group_norm",)
    for factor, text in (*EPS, (0.0, "left out")):
        yield _otherwise(f"eps {text}", of, partial(_eps_times, factor))
    yield _otherwise("statistics over all channels: they are of each group", of, lambda c: {"groups": 1})
    text = "statistics of each channel by itself: they are of each group"
    yield _otherwise(text, of, lambda c: {"groups": c.x.shape[3]})
    yield _with_scale("|gamma|: the scale's sign is lost", of, np.abs)
    yield _with_scale("gamma left out", of, np.ones_like)
    yield Mistake("bias left out", of, lambda c: c.forward(*c.arrays[:2], 0 * c.arrays[2]))
    yield Mistake("unbiased normalisation: divide by M, not M - 1", of, _unbiased, _unbiased_back)
    yield Mistake("statistics taken as constants in backward", of, None, _constants_back)
    yield Mistake("eps outside the square root", of, _outside, _outside_back)


def _grouped(c: Call, a: Array) -> Array:
    """(N, H, W, C) as (N, H W, groups, C / groups)."""
    groups = c.attrs.get("groups", 1)
    return a.reshape(len(a), -1, groups, a.shape[3] // groups)


def _normal_outside(c: Call) -> tuple[Array, Array]:
    x = _grouped(c, c.x)
    centred = x - x.mean(axis=(1, 3), keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=(1, 3), keepdims=True))
    inv_std = 1 / (deviation + c.attrs.get("eps", 1e-5))
    return centred * inv_std, inv_std


def _outside(c: Call) -> Array:
    return np.asarray(_normal_outside(c)[0].reshape(c.x.shape) * c.arrays[1] + c.arrays[2])


def _outside_back(c: Call, gy: Array) -> tuple[Array | None, ...]:
    x_hat, inv_std = _normal_outside(c)
    a = _grouped(c, gy * c.arrays[1])
    along = (a * x_hat).mean(axis=(1, 3), keepdims=True)
    gx = (inv_std * (a - a.mean(axis=(1, 3), keepdims=True) - x_hat * along)).reshape(gy.shape)
    return gx, (gy * x_hat.reshape(gy.shape)).sum(axis=(0, 1, 2)), gy.sum(axis=(0, 1, 2))


def _eps_times(factor: float, c: Call) -> dict[str, Any]:
    return {"eps": factor * c.attrs.get("eps", 1e-5)}


def _otherwise(cause: str, ops: tuple[str, ...], attrs: Callable[[Call], dict[str, Any]]) -> Mistake:
    def changed(c: Call) -> dict[str, Any]:
        found = attrs(c)
        if all(c.attrs.get(name) == value for name, value in found.items()):
            raise LookupError("nothing is changed")
        return found

    return Mistake(cause, ops, lambda c: c.forward(**changed(c)), lambda c, gy: c.backward(gy, **changed(c)))


def _with_scale(cause: str, ops: tuple[str, ...], scale: Callable[[Array], Array]) -> Mistake:
    def arrays(c: Call) -> tuple[Array, ...]:
        return c.x, scale(c.arrays[1]), c.arrays[2]

    return Mistake(cause, ops, lambda c: c.forward(*arrays(c)), lambda c, gy: c.backward(gy, *arrays(c)))


def _shrunk(c: Call) -> tuple[float, dict[str, Any]]:
    """d / sqrt(var m / (m - 1) + eps) is k times d / sqrt(var + k^2 eps)."""
    m = c.x[0].size // c.attrs.get("groups", 1)
    k = ((m - 1) / m) ** 0.5
    return k, {"eps": k * k * c.attrs.get("eps", 1e-5)}


def _unbiased(c: Call) -> Array:
    k, attrs = _shrunk(c)
    return c.forward(c.x, k * c.arrays[1], c.arrays[2], **attrs)


def _unbiased_back(c: Call, gy: Array) -> tuple[Array | None, ...]:
    k, attrs = _shrunk(c)
    gx, along, total = c.backward(gy, c.x, k * c.arrays[1], c.arrays[2], **attrs)
    return gx, None if along is None else k * along, total


def _constants_back(c: Call, gy: Array) -> tuple[Array | None, ...]:
    """gx = gamma inv_std gy."""
    inv_std = 1 / np.sqrt(_grouped(c, c.x).var(axis=(1, 3), keepdims=True) + c.attrs.get("eps", 1e-5))
    return (_grouped(c, gy * c.arrays[1]) * inv_std).reshape(gy.shape), *c.backward(gy)[1:]


def _mistake(cause: str, ops: tuple[str, ...], norm: _Norm) -> Mistake:
    return Mistake(cause, ops, norm.forward, norm.backward)


def _scaled_eps(factor: float) -> Callable[[Array, float], Array]:
    return lambda var, eps: 1 / np.sqrt(var + factor * eps)


def _eps_rounded(var: Array, eps: float) -> Array:
    return np.asarray(1 / np.sqrt(var + float(np.float32(eps))))


def _eps_outside(var: Array, eps: float) -> Array:
    return np.asarray(1 / (np.sqrt(var) + eps))
