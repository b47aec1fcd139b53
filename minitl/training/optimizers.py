"""Optimizers: SGD with momentum, Adam and AdamW. All follow `torch.optim` to the formula.

An optimizer keeps `slots` arrays of a parameter's size for each parameter it trains, nothing
for the others, and updates in place without a temporary of that size. It takes a whole step at
once (`step`), or one gradient at a time, as backward completes them (`begin`, `apply`); both give
the same bytes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minitl.arrays import FLOATS, Array
from minitl.checks import as_number, expect_flag
from minitl.errors import DtypeError, NotFiniteError, ShapeError, UsageError, ValueRangeError, brief, unknown
from minitl.kernels.broadcast import Broadcast
from minitl.kernels.formula import sqrt
from minitl.kernels.update import update
from minitl.parameters import Parameter, expect_writable


@dataclass
class State:
    """What is remembered of one parameter: `slots` flat arrays, and how many steps it took."""

    arrays: tuple[Array, ...]
    steps: int = 0

    def fits(self, p: Array) -> bool:
        """Whether it can be the state of `p`."""
        return all(array.nbytes == p.nbytes and array.dtype == p.dtype for array in self.arrays)


@dataclass(frozen=True)
class Update:
    """One parameter's part of a step: `p` along its gradient `g` (both flat), at these rates.

    `state.steps` counts this step already (from 1). `factor` multiplies the gradient.
    """

    p: Array
    g: Array
    state: State
    lr: float
    decay: float
    factor: float


class Optimizer(ABC):
    """Steps downhill in place; a subclass says how many arrays it needs (`slots`) and the formula (`update`).

    Without `decay_vectors`, weight decay leaves out all parameters of one axis: scales and shifts of
    norms, and biases. `clip_norm` bounds the norm of all gradients of a step taken as one vector (Pascanu et al. 2013,
    arXiv:1211.5063): where it is larger, all are multiplied by clip_norm / (norm + 1e-6), as
    `torch.nn.utils.clip_grad_norm_` does.
    """

    def __init__(self, lr: float, weight_decay: float, decay_vectors: bool, clip_norm: float | None) -> None:
        self.decay_vectors = expect_flag("decay_vectors", decay_vectors, op="optimizer")
        self.lr = expect_not_negative("learning rate", lr)
        self.weight_decay = expect_not_negative("weight decay", weight_decay)
        self.clip_norm = None if clip_norm is None else expect_not_negative("clip_norm", clip_norm)
        self.state: dict[str, State] = {}

    def __repr__(self) -> str:
        settings = [f"{name}={value}" for name, value in vars(self).items() if name != "state"]
        return f"<{type(self).__name__} {', '.join(settings)}>"

    @property
    @abstractmethod
    def slots(self) -> int:
        """Arrays of a parameter's size kept for each trained parameter."""

    @abstractmethod
    def update(self, u: Update, *, write: bool) -> bool:
        """Whether all numbers of the update are finite; with `write`, make it."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the arrays held: `slots` times those of the parameters trained so far."""
        return sum(array.nbytes for state in self.state.values() for array in state.arrays)

    def step(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array], lr_scale: float = 1.0) -> None:
        """Update in place, with learning rate `lr * lr_scale`, exactly the parameters that have a gradient.

        Parameters and gradients are C-contiguous, of equal shape and dtype. Raises, before any
        parameter or state has changed: UnknownNameError for a gradient of no parameter, ShapeError,
        DtypeError or UsageError for a pair that does not fit, ValueRangeError for a gradient, a
        learning rate or an updated parameter that is not finite.
        """
        lr = self._rate(lr_scale)
        for argument in (parameters, gradients):
            if not isinstance(argument, Mapping):
                raise UsageError(op="optimizer", expected="arrays by parameter name", got=brief(repr(argument)))
        for name, gradient in gradients.items():
            if name not in parameters:
                raise unknown("parameter", name, parameters, op="optimizer")
            expect_pair(name, parameters[name], gradient)
        factor = self._factor(gradients)
        updates = {name: self._prepared(name, parameters[name], g, lr, factor) for name, g in gradients.items()}
        for name, u in updates.items():
            self.update(u, write=True)
            self.state[name] = u.state

    def begin(self, parameters: Iterable[Parameter]) -> None:
        """Make sure that gradients of these parameters can be applied one by one; nothing has changed if it raises.

        Raises UsageError where gradients are clipped by their global norm, which is known only when
        all of them are there, and what `step` does for a parameter it cannot update.
        """
        if self.clip_norm is not None:
            raise UsageError(
                "the global norm is known only when every gradient is there, so they cannot be applied as they come",
                op="optimizer",
                remedy="take the step after backward, or leave clip_norm out",
            )
        for parameter in parameters:
            expect_pair(parameter.name, parameter.value, parameter.value)
            self._expect_known(parameter.name, parameter.value)

    def apply(self, parameter: Parameter, gradient: Array, lr_scale: float = 1.0) -> None:
        """Update one parameter, in the midst of backward, once its gradient is complete and its old value read.

        The bytes are those of a `step` with all gradients. Raises what `step` does, with this
        parameter unchanged; those that were applied before stay as they are.
        """
        name, p = parameter.name, parameter.value
        expect_pair(name, p, gradient)
        u = self._prepared(name, p, gradient, self._rate(lr_scale), 1.0)
        self.update(u, write=True)
        self.state[name] = u.state

    def scaled(self, lr_scale: float) -> Scaled:
        """The optimizer at `lr * lr_scale`, for gradients that are applied one by one."""
        self._rate(lr_scale)
        return Scaled(self, lr_scale)

    def _rate(self, lr_scale: float) -> float:
        return expect_not_negative("learning rate", self.lr * expect_not_negative("lr_scale", lr_scale))

    def _factor(self, gradients: Mapping[str, Array]) -> float:
        if self.clip_norm is None:
            return 1.0
        flat = [gradient.reshape(-1) for gradient in gradients.values()]
        norm = math.sqrt(math.fsum(float(np.einsum("i,i->", g, g, dtype=np.float64)) for g in flat))
        return min(1.0, self.clip_norm / (norm + 1e-6))

    def _expect_known(self, name: str, p: Array) -> None:
        if name in self.state and not self.state[name].fits(p):
            raise ShapeError(
                layer=name, expected="the parameter of earlier steps", got="another", remedy="take a new optimizer"
            )

    def _prepared(self, name: str, p: Array, gradient: Array, lr: float, factor: float) -> Update:
        """The update, known to be finite, of which nothing is done yet; a first state is nobody's so far."""
        self._expect_known(name, p)
        state = self.state.get(name) or State(tuple(np.zeros(p.size, p.dtype) for _ in range(self.slots)))
        state = replace(state, steps=state.steps + 1)
        decay = self.weight_decay if self.decay_vectors or p.ndim > 1 else 0.0
        u = Update(p.reshape(-1), gradient.reshape(-1), state, lr, decay, factor)
        if not self.update(u, write=False):
            what = "update of the parameter" if np.isfinite(gradient).all() else "gradient"
            raise NotFiniteError(
                layer=name, expected=f"a finite {what}", got="nan or inf", remedy="lower the learning rate"
            )
        return u


@dataclass(frozen=True)
class Scaled:
    """An optimizer whose learning rate is multiplied by `lr_scale` for one step of gradients applied as they come."""

    optimizer: Optimizer
    lr_scale: float

    def begin(self, parameters: Iterable[Parameter]) -> None:
        """See `Optimizer.begin`."""
        self.optimizer.begin(parameters)

    def apply(self, parameter: Parameter, gradient: Array) -> None:
        """See `Optimizer.apply`."""
        self.optimizer.apply(parameter, gradient, self.lr_scale)


# What is done to each number of a parameter p along its gradient g, of which `clip` times is taken.


def _descend(p: Any, g: Any, lr: Any, clip: Any, decay: Any) -> Any:
    return p - lr * (clip * g + decay * p)


def _momentum(
    p: Any, g: Any, velocity: Any, lr: Any, clip: Any, decay: Any, keep: Any, straight: Any, carried: Any
) -> Any:
    h = clip * g + decay * p
    v = keep * velocity + h
    return p - lr * (straight * h + carried * v), v  # not finite where v is not, even at rate 0


def _adam(
    p: Any, g: Any, mean: Any, square: Any, lr: Any, clip: Any, decay: Any, eps: Any, keep1: Any, add1: Any,
    keep2: Any, add2: Any, remain: Any,
) -> Any:  # fmt: skip
    h = clip * g + decay * p
    m = keep1 * mean + add1 * h
    s = keep2 * square + add2 * h * h
    return remain * p - lr * m / (sqrt(s) + eps), m, s


DESCEND = Broadcast(_descend, "ccnnn", "c")
MOMENTUM = Broadcast(_momentum, "cccnnnnnn", "cc")
ADAM = Broadcast(_adam, "ccccnnnnnnnnn", "ccc")


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
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, decay_vectors, clip_norm)
        self.momentum = expect_fraction("momentum", momentum)
        self.nesterov = expect_flag("nesterov", nesterov, op="optimizer")
        if nesterov and not momentum:
            raise ValueRangeError(op="optimizer", expected="a momentum above 0 with nesterov", got="0")

    @property
    def slots(self) -> int:
        """The velocity, unless momentum is 0."""
        return 1 if self.momentum else 0

    def update(self, u: Update, *, write: bool) -> bool:
        """See the formula above."""
        rates = (u.lr, u.factor, u.decay)
        if not self.momentum:
            return update(DESCEND, (u.p, u.g), rates, write=write)
        straight, carried = (1.0, self.momentum) if self.nesterov else (0.0, 1.0)
        return update(MOMENTUM, (u.p, u.g, *u.state.arrays), (*rates, self.momentum, straight, carried), write=write)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; `torch.optim.Adam`). At step t = 1, 2, ...:

        h = g + weight_decay p
        m <- b1 m + (1 - b1) h,    v <- b2 v + (1 - b2) h^2,    both 0 at first
        p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Weight decay is the L2 term's gradient, added to g (it is not decoupled, as AdamW's is).
    Each parameter counts its own steps. With eps = 0 a gradient that is 0 from the first step on
    would give 0 / 0: it is refused.
    """

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decay_vectors: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, decay_vectors, clip_norm)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueRangeError(op="optimizer", expected="betas to be two numbers", got=brief(repr(betas)))
        self.betas = expect_fraction("beta 1", betas[0]), expect_fraction("beta 2", betas[1])
        self.eps = expect_not_negative("eps", eps)

    @property
    def slots(self) -> int:
        """The running means of the gradient and of its square."""
        return 2

    def update(self, u: Update, *, write: bool) -> bool:
        """See the formula above; both sides of its fraction are multiplied by sqrt(1 - b2^t)."""
        return self._update(u, u.decay, 1.0, write)

    def _update(self, u: Update, decay: float, remain: float, write: bool) -> bool:
        correction1 = 1 - self.betas[0] ** u.state.steps
        correction2 = math.sqrt(1 - self.betas[1] ** u.state.steps)
        rates = (u.lr * correction2 / correction1, u.factor, decay, self.eps * correction2)
        betas = (self.betas[0], 1 - self.betas[0], self.betas[1], 1 - self.betas[1])
        return update(ADAM, (u.p, u.g, *u.state.arrays), (*rates, *betas, remain), write=write)


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
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, decay_vectors=decay_vectors, clip_norm=clip_norm)

    def update(self, u: Update, *, write: bool) -> bool:
        """See the formula above."""
        return self._update(u, 0.0, 1 - u.lr * u.decay, write)


def expect_not_negative(what: str, value: object) -> float:
    """`value` as a float; raise ValueRangeError unless it is a finite number of at least 0."""
    number = as_number(value)
    if number is None or number < 0:
        raise ValueRangeError(op="optimizer", expected=f"a finite {what} of at least 0", got=brief(value))
    return number


def expect_fraction(what: str, value: object) -> float:
    """`value` as a float; raise ValueRangeError unless 0 <= value < 1."""
    number = as_number(value)
    if number is None or not 0 <= number < 1:
        raise ValueRangeError(op="optimizer", expected=f"{what} in [0, 1)", got=brief(value))
    return number


def expect_pair(name: str, p: object, g: object) -> None:
    """Raise unless `g` can be the gradient of the parameter `p`, and `p` be updated in place."""
    if not (isinstance(p, np.ndarray) and isinstance(g, np.ndarray)):
        kinds = f"{type(p).__name__} and {type(g).__name__}"
        raise DtypeError(layer=name, expected="arrays for a parameter and its gradient", got=kinds)
    if p.shape != g.shape:
        raise ShapeError(layer=name, expected=f"a gradient of shape {p.shape}", got=str(g.shape))
    if p.dtype != g.dtype or p.dtype.name not in FLOATS or not p.dtype.isnative:
        raise DtypeError(layer=name, expected=f"a gradient of {p.dtype}, float32 or float64", got=str(g.dtype))
    if not (p.flags.c_contiguous and g.flags.c_contiguous):
        raise UsageError("is not C-contiguous, so it cannot be updated in place", layer=name)
    expect_writable(name, p)
