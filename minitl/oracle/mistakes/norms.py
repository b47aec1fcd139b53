"""Mistakes in norms: other statistics, another eps, another scale, another backward.

All norms are  y = gamma x_hat + beta,  x_hat = (x - mean) inv_std,  inv_std = 1 / sqrt(var + eps).  The statistics are
running ones (frozen norm), or those of a group of values: a sample's in some channels (group norm), or a channel's
in all samples (batch norm). With a = gy gamma, and means over a group,

    gx = inv_std (a - mean(a) - x_hat mean(a x_hat))         or inv_std a, where the statistics are constants
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from minitl.arrays import Array
from minitl.oracle.mistakes.tape import Backward, Call, Mistake

BATCH, FROZEN, GROUP = ("batch_norm",), ("frozen_norm",), ("group_norm",)
EVERY, OF_GROUPS = BATCH + FROZEN + GROUP, BATCH + GROUP
EPS = ((10.0, "10x"), (100.0, "100x"), (0.1, "1/10"), (0.01, "1/100"), (0.0, "left out"))

Centred = Callable[[Array, Array, Array, Array, int], Array]  # of a, x_hat, their means, and the values of a group


def _centred(a: Array, x_hat: Array, mean: Array, along: Array, m: int) -> Array:
    return np.asarray(a - mean - x_hat * along)


def _one(*_: object) -> float:
    return 1.0


def _constant(a: Array, *_: object) -> Array:
    return a


@dataclass(frozen=True)
class _Norm:
    """How a norm is computed; the defaults are the right way for each op."""

    running: bool | None = None  # running statistics; None: in a frozen norm
    centred: Centred | None = None  # None: `_constant` in a frozen norm
    groups: Callable[[Call], int] = lambda c: c.attrs.get("groups", 1)  # of a group norm
    unbiased: bool = False
    centre: bool = True  # whether the mean is subtracted
    inv_std: Callable[[Array, float], Array] = lambda var, eps: 1 / np.sqrt(var + eps)
    scale: Callable[[Array], Array] = lambda gamma: gamma
    shift: Callable[[Array], Array] = lambda beta: beta
    own: Callable[[Array, float, int], Array | float] = _one  # how many times the x_hat term of gx, of inv_std, eps, m

    def forward(self, c: Call) -> Array:
        """y = scale x_hat + shift."""
        x_hat, _ = self.normalised(c)
        return np.asarray(self.scale(c.arrays[1]) * x_hat + self.shift(c.arrays[2]))

    def normalised(self, c: Call) -> tuple[Array, Array]:
        """x_hat and inv_std."""
        if c.op.name == "frozen_norm" if self.running is None else self.running:
            mean, var = c.arrays[3:]
        else:
            mean, m = self._means(c, c.x)
            var = self._means(c, np.square(c.x - mean))[0] * (m / (m - self.unbiased))
        inv_std = self.inv_std(var, c.attrs.get("eps", 1e-5))
        return (c.x - self.centre * mean) * inv_std, inv_std

    def backward(self, c: Call, gy: Array) -> tuple[Array | None, ...]:
        """gx, ggamma = sum gy x_hat and gbeta = sum gy, with this norm's x_hat and inv_std."""
        x_hat, inv_std = self.normalised(c)
        a = gy * self.scale(c.arrays[1])
        (mean, m), (along, _) = self._means(c, a), self._means(c, a * x_hat)
        along = along * self.own(inv_std, c.attrs.get("eps", 1e-5), m)
        centred = self.centred or (_constant if c.op.name == "frozen_norm" else _centred)
        gx = inv_std * centred(a, x_hat, mean, along, m)
        return (gx, _over_positions(gy * x_hat), _over_positions(gy), None, None)[: len(c.arrays)]

    def _means(self, c: Call, a: Array) -> tuple[Array, int]:
        """The mean of each value's group, in its place, and how many values that has."""
        n, channels = len(a), a.shape[3]
        groups = self.groups(c)
        shape = (n, -1, groups, channels // groups) if c.op.name == "group_norm" else (1, -1, channels, 1)
        grouped = a.reshape(shape)
        means = grouped.mean(axis=(1, 3), keepdims=True)
        return np.broadcast_to(means, grouped.shape).reshape(a.shape), grouped.shape[1] * grouped.shape[3]


def _scaled_eps(factor: float, var: Array, eps: float) -> Array:
    return np.asarray(1 / np.sqrt(var + factor * eps))


def _outside(var: Array, eps: float) -> Array:
    return np.asarray(1 / (np.sqrt(var) + eps))


RIGHT = _Norm()
WRONG = (
    *((f"eps {text}", EVERY, _Norm(inv_std=partial(_scaled_eps, factor))) for factor, text in EPS),
    ("eps rounded to float32", EVERY, _Norm(inv_std=lambda v, eps: 1 / np.sqrt(v + float(np.float32(eps))))),
    ("eps outside the square root", EVERY, _Norm(inv_std=_outside)),
    (
        "eps outside the square root",
        OF_GROUPS,
        _Norm(inv_std=_outside, own=lambda inv_std, eps, m: 1 / (1 - eps * inv_std)),
    ),
    (
        "the square root left out: divide by the deviation, not the variance",
        EVERY,
        _Norm(inv_std=lambda v, eps: 1 / (v + eps)),
    ),
    ("the mean is not subtracted", EVERY, _Norm(centre=False)),
    ("|gamma|: the scale's sign is lost", EVERY, _Norm(scale=np.abs)),
    ("gamma left out", EVERY, _Norm(scale=np.ones_like)),
    ("bias left out", EVERY, _Norm(shift=np.zeros_like)),
    ("unbiased normalisation: divide by M, not M - 1", OF_GROUPS, _Norm(unbiased=True)),
    (
        "unbiased normalisation: divide by M, not M - 1",
        OF_GROUPS,
        _Norm(unbiased=True, own=lambda inv_std, eps, m: m / (m - 1)),  # what autograd makes of it
    ),
    ("frozen statistics where they are the batch's", BATCH, _Norm(running=True, centred=_constant)),
    ("batch statistics where they are frozen", FROZEN, _Norm(running=False, centred=_centred)),
    ("batch statistics where they are frozen", FROZEN, _Norm(running=False, centred=_constant)),
    ("statistics over all channels: they are of each group", GROUP, _Norm(groups=lambda c: 1)),
    ("statistics of each channel by itself: they are of each group", GROUP, _Norm(groups=lambda c: c.x.shape[3])),
)


def mistakes() -> Iterator[Mistake]:
    """All of them."""
    for cause, ops, norm in WRONG:
        yield Mistake(cause, ops, norm.forward, norm.backward)
    yield from _backward_alone()


def _backward_alone() -> Iterator[Mistake]:
    """The usual formulas of the gradients with something left out, or something else in its place."""
    for cause, centred in {
        "statistics taken as constants in backward": _constant,
        "the x_hat term of the input's gradient left out": lambda a, x_hat, mean, along, m: a - mean,
        "the mean of gy left out of the input's gradient": lambda a, x_hat, mean, along, m: a - x_hat * along,
        "the sums in the input's gradient not divided by M": lambda a, x_hat, mean, along, m: (
            a - m * (mean + x_hat * along)
        ),
        "the sums in the input's gradient divided by M - 1, where M is right": lambda a, x_hat, mean, along, m: (
            a - m / (m - 1) * (mean + x_hat * along)
        ),
    }.items():
        yield Mistake(cause, OF_GROUPS, None, _Norm(centred=centred).backward)
    for cause, by in {
        "the scale's gradient from x - mean: inv_std forgotten": lambda c, x_hat, inv_std: x_hat / inv_std,
        "the scale's gradient from x, where x_hat is right": lambda c, x_hat, inv_std: c.x,
    }.items():
        yield Mistake(cause, OF_GROUPS, None, _scale_from(by))
    for cause, of_gx in {
        "the standard deviation in place of its inverse": lambda c, gx, inv_std: gx / inv_std**2,
        "inv_std left out of the input's gradient": lambda c, gx, inv_std: gx / inv_std,
        "the norm's scale, gamma inv_std, left out of the input's gradient": lambda c, gx, inv_std: (
            gx / (c.arrays[1] * inv_std)
        ),
    }.items():
        for ops in (EVERY, FROZEN, BATCH):  # a block's inner norms and its last one are often different code
            yield Mistake(cause, ops, None, _with_gx(of_gx))


def _scale_from(by: Callable[[Call, Array, Array], Array]) -> Backward:
    def backward(c: Call, gy: Array) -> tuple[Array | None, ...]:
        gx, _, *rest = RIGHT.backward(c, gy)
        return gx, _over_positions(gy * by(c, *RIGHT.normalised(c))), *rest

    return backward


def _with_gx(of_gx: Callable[[Call, Array, Array], Array]) -> Backward:
    def backward(c: Call, gy: Array) -> tuple[Array | None, ...]:
        gx, *rest = RIGHT.backward(c, gy)
        return of_gx(c, np.asarray(gx), RIGHT.normalised(c)[1]), *rest

    return backward


def _over_positions(a: Array) -> Array:
    return np.asarray(a.sum(axis=(0, 1, 2)))
