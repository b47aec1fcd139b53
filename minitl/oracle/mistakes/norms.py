"""Mistakes in batch norm and frozen norm: other statistics, another eps, another scale, another backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


def _mistake(cause: str, ops: tuple[str, ...], norm: _Norm) -> Mistake:
    return Mistake(cause, ops, norm.forward, norm.backward)


def _scaled_eps(factor: float) -> Callable[[Array, float], Array]:
    return lambda var, eps: 1 / np.sqrt(var + factor * eps)


def _eps_outside(var: Array, eps: float) -> Array:
    return np.asarray(1 / (np.sqrt(var) + eps))
