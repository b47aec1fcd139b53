"""Optimizers: SGD with momentum, Adam and AdamW. All follow `torch.optim` to the formula.

An optimizer keeps `slots` arrays of a parameter's size for each parameter it trains, nothing
for the others, and updates in place without a temporary of that size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minitl.arrays import Array
from minitl.errors import DtypeError, ShapeError, UsageError, ValueRangeError, unknown
from minitl.kernels import update


@dataclass
class State:
    """What is remembered of one parameter: `slots` flat arrays, and how many steps it took."""

    arrays: tuple[Array, ...]
    steps: int = 0

    def fits(self, p: Array) -> bool:
        """Whether it can be the state of `p`."""
        return all(array.nbytes == p.nbytes and array.dtype == p.dtype for array in self.arrays)


class Optimizer(ABC):
    """Steps downhill in place; a subclass says how many arrays it needs (`slots`) and the formula (`update`).

    Without `decay_vectors`, weight decay leaves out all parameters of one axis: scales and shifts of
    norms, and biases.
    """

    def __init__(self, lr: float, weight_decay: float, decay_vectors: bool = True) -> None:
        self.lr, self.weight_decay, self.decay_vectors = lr, weight_decay, decay_vectors
        self.state: dict[str, State] = {}
        expect_not_negative("learning rate", lr)
        expect_not_negative("weight decay", weight_decay)

    @property
    @abstractmethod
    def slots(self) -> int:
        """Arrays of a parameter's size kept for each trained parameter."""

    @abstractmethod
    def update(self, p: Array, g: Array, state: State, lr: float, decay: float) -> None:
        """Move the flat parameter `p` along its flat gradient `g`, for the `state.steps`-th time (from 1)."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the arrays held: `slots` times those of the parameters trained so far."""
        return sum(array.nbytes for state in self.state.values() for array in state.arrays)

    def step(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array], lr_scale: float = 1.0) -> None:
        """Update in place, with learning rate `lr * lr_scale`, exactly the parameters that have a gradient.

        Parameters and gradients are C-contiguous, of equal shape and dtype. Raises, before any
        parameter has changed: UnknownNameError for a gradient of no parameter, ShapeError,
        DtypeError or UsageError for a pair that does not fit, ValueRangeError for a gradient or
        a learning rate that is not finite.
        """
        expect_not_negative("learning rate", self.lr * lr_scale)
        for name, gradient in gradients.items():
            if name not in parameters:
                raise unknown("parameter", name, parameters, op="optimizer")
            expect_pair(name, parameters[name], gradient)
            if name in self.state and not self.state[name].fits(parameters[name]):
                raise ShapeError(
                    layer=name, expected="the parameter of earlier steps", got="another", remedy="take a new optimizer"
                )
        for name, gradient in gradients.items():
            p = parameters[name].reshape(-1)
            if name not in self.state:
                self.state[name] = State(tuple(np.zeros_like(p) for _ in range(self.slots)))
            state = self.state[name]
            state.steps += 1
            decay = self.weight_decay if self.decay_vectors or gradient.ndim > 1 else 0.0
            self.update(p, gradient.reshape(-1), state, self.lr * lr_scale, decay)


class SGD(Optimizer):
    """Gradient descent with momentum (Sutskever et al. 2013, in the form of `torch.optim.SGD`).

        v <- momentum v + g + weight_decay p,    p <- p - lr v,    v = 0 at first

    Weight decay is the L2 term's gradient, added to g. Without momentum nothing is kept. With
    `nesterov`, p <- p - lr (momentum v + g + weight_decay p) instead: the next step's momentum is
    taken ahead of time (Nesterov 1983; Sutskever et al., section 2).
    """

    def __init__(
        self,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
        decay_vectors: bool = True,
    ) -> None:
        super().__init__(lr, weight_decay, decay_vectors)
        self.momentum, self.nesterov = momentum, nesterov
        expect_fraction("momentum", momentum)
        if nesterov and not momentum:
            raise ValueRangeError(op="optimizer", expected="a momentum above 0 with nesterov", got="0")

    @property
    def slots(self) -> int:
        """The velocity, unless momentum is 0."""
        return 1 if self.momentum else 0

    def update(self, p: Array, g: Array, state: State, lr: float, decay: float) -> None:
        """See the formula above."""
        if self.momentum:
            update.momentum(p, g, state.arrays[0], lr, self.momentum, decay, self.nesterov)
        else:
            update.descend(p, g, lr, decay)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; `torch.optim.Adam`). At step t = 1, 2, ...:

        h = g + weight_decay p
        m <- b1 m + (1 - b1) h,    v <- b2 v + (1 - b2) h^2,    both 0 at first
        p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Weight decay is the L2 term's gradient, added to g (it is not decoupled, as AdamW's is).
    Each parameter counts its own steps.
    """

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decay_vectors: bool = True,
    ) -> None:
        super().__init__(lr, weight_decay, decay_vectors)
        self.betas, self.eps = betas, eps
        expect_fraction("beta 1", betas[0])
        expect_fraction("beta 2", betas[1])
        expect_not_negative("eps", eps)

    @property
    def slots(self) -> int:
        """The running means of the gradient and of its square."""
        return 2

    def update(self, p: Array, g: Array, state: State, lr: float, decay: float) -> None:
        """See the formula above; both sides of its fraction are multiplied by sqrt(1 - b2^t)."""
        correction1 = 1 - self.betas[0] ** state.steps
        correction2 = math.sqrt(1 - self.betas[1] ** state.steps)
        mean, square = state.arrays
        rate, eps = lr * correction2 / correction1, self.eps * correction2
        update.adam(p, g, mean, square, rate, self.betas, eps, decay)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101; `torch.optim.AdamW`).

    p <- p (1 - lr weight_decay), then Adam's step of the gradient alone. The default is PyTorch's.
    """

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        decay_vectors: bool = True,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, decay_vectors=decay_vectors)

    def update(self, p: Array, g: Array, state: State, lr: float, decay: float) -> None:
        """See the formula above."""
        np.multiply(p, p.dtype.type(1 - lr * decay), out=p)
        super().update(p, g, state, lr, 0.0)


def expect_not_negative(what: str, value: float) -> None:
    """Raise ValueRangeError unless `value` is finite and at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueRangeError(op="optimizer", expected=f"a finite {what} of at least 0", got=str(value))


def expect_fraction(what: str, value: float) -> None:
    """Raise ValueRangeError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ValueRangeError(op="optimizer", expected=f"{what} in [0, 1)", got=str(value))


def expect_pair(name: str, p: Array, g: Array) -> None:
    """Raise unless `g` is a finite gradient of `p`. The largest and the smallest value tell without a temporary."""
    if p.shape != g.shape:
        raise ShapeError(layer=name, expected=f"a gradient of shape {p.shape}", got=str(g.shape))
    if p.dtype != g.dtype:
        raise DtypeError(layer=name, expected=f"a gradient of {p.dtype}", got=str(g.dtype))
    if not (p.flags.c_contiguous and g.flags.c_contiguous):
        raise UsageError("is not C-contiguous, so it cannot be updated in place", layer=name)
    if not (np.isfinite(g.max(initial=0)) and np.isfinite(g.min(initial=0))):
        raise ValueRangeError(
            layer=name, expected="a finite gradient", got="nan or inf", remedy="lower the learning rate"
        )
