"""Cases of an optimizer: a parameter, the gradients of some steps, and what becomes of it.

    sgd:   d = g + weight_decay p      v <- momentum v + d      p <- p - lr v      (nesterov: p - lr (momentum v + d))
    adam:  d = g + weight_decay p      m <- beta1 m + (1 - beta1) d      v <- beta2 v + (1 - beta2) d^2
           p <- p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)                  t = 1 in the first step

as in `torch.optim`, m and v being 0 at first. Bounds follow `bounds`: every value has one, handed on from step to step.
A constant such as 1 - beta2 may have been computed in the format itself, where it has the relative error
u / (1 - beta2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.oracle.bounds import Precision
from minitl.oracle.data import Source

ATTRS: dict[str, dict[str, Any]] = {
    "sgd": {"size": 7, "steps": 1, "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": False},
    "adam": {
        **{"size": 7, "steps": 1, "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    },
}
RATES = ((10.0, "10x"), (0.1, "1/10"), (-1.0, "of the wrong sign"))  # wrong learning rates, as factors
STATE = {"sgd": ("velocity",), "adam": ("first_moment", "second_moment")}


@dataclass(frozen=True)
class Mistakes:
    """What may be done otherwise than right."""

    decoupled: bool = False  # weight decay goes straight to the parameter, as in AdamW
    corrected: bool = True  # moments are divided by 1 - beta^t
    eps_inside: bool = False  # the square root
    damped: bool = False  # the gradient is multiplied by 1 - momentum
    remembers: bool = True  # earlier steps


CAUSES = {
    "sgd": {
        "weight decay applied to the parameter, not added to the gradient": Mistakes(decoupled=True),
        "the gradient multiplied by 1 - momentum (dampening)": Mistakes(damped=True),
        "momentum forgotten: each step begins with none": Mistakes(remembers=False),
    },
    "adam": {
        "weight decay applied to the parameter, not added to the gradient (AdamW)": Mistakes(decoupled=True),
        "bias correction left out: moments are not divided by 1 - beta^t": Mistakes(corrected=False),
        "eps inside the square root": Mistakes(eps_inside=True),
        "moments forgotten: each step begins with none": Mistakes(remembers=False),
    },
}


def draw(attrs: Mapping[str, Any], source: Source) -> dict[str, Array]:
    """A parameter and the gradients of its steps."""
    return {
        "input.x": source.normal((attrs["size"],)),
        "input.gradients": source.normal((attrs["steps"], attrs["size"]), 0.5),
    }


def run(
    op: str,
    attrs: Mapping[str, Any],
    values: Mapping[str, Array],
    p: Precision,
    wrong: Mistakes = Mistakes(),
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The parameter and the optimizer's state after all steps, and their bounds."""
    step = {"sgd": _sgd, "adam": _adam}[op]
    x = (values["input.x"].astype(np.float64), p.entering(values["input.x"]))
    zero = (np.zeros_like(x[0]), np.zeros_like(x[0]))
    state = [zero for _ in STATE[op]]
    for t, g in enumerate(values["input.gradients"].astype(np.float64), 1):
        if not wrong.remembers:
            state = [zero for _ in STATE[op]]
        x, state = step(attrs, x, state, (g, p.entering(g)), t, p, wrong)
    names = ("output", *(f"state_after.{name}" for name in STATE[op]))
    pairs = dict(zip(names, (x, *state), strict=True))
    return {n: v for n, (v, _) in pairs.items()}, {n: e for n, (_, e) in pairs.items()}


Known = tuple[Array, Array]  # a value and its bound


def _sum(p: Precision, count: float, *terms: tuple[float, Known]) -> Known:
    """factor value + factor value + ..., after `count` roundings of each term."""
    size = sum(abs(factor) * (np.abs(v) + e) for factor, (v, e) in terms)
    error = sum(abs(factor) * e for factor, (_, e) in terms)
    total = sum(factor * v for factor, (v, _) in terms)
    return np.asarray(total), np.asarray(error + p.rounding(count, np.asarray(size)))


def _decayed(a: Mapping[str, Any], x: Known, g: Known, p: Precision, wrong: Mistakes) -> Known:
    return _sum(p, 3, (1.0, g), (0.0 if wrong.decoupled else a["weight_decay"], x))


def _moved(a: Mapping[str, Any], x: Known, along: Known, p: Precision, wrong: Mistakes) -> Known:
    kept = 1 - a["lr"] * a["weight_decay"] * wrong.decoupled
    return _sum(p, 4, (kept, x), (-a["lr"], along))


def _sgd(
    a: Mapping[str, Any], x: Known, state: list[Known], g: Known, t: int, p: Precision, wrong: Mistakes
) -> tuple[Known, list[Known]]:
    d = _decayed(a, x, g, p, wrong)
    v = _sum(p, 3, (a["momentum"], state[0]), (1 - a["momentum"] if wrong.damped and t > 1 else 1.0, d))
    along = _sum(p, 3, (a["momentum"], v), (1.0, d)) if a["nesterov"] else v
    return _moved(a, x, along, p, wrong), [v]


def _adam(
    a: Mapping[str, Any], x: Known, state: list[Known], g: Known, t: int, p: Precision, wrong: Mistakes
) -> tuple[Known, list[Known]]:
    b1, b2 = a["beta1"], a["beta2"]
    d, of_d = _decayed(a, x, g, p, wrong)
    new = _sum(p, 2 + 1 / (1 - b1), (1 - b1, (d, of_d)))
    m = _sum(p, 3, (b1, state[0]), (1.0, new))
    new = _sum(p, 3 + 1 / (1 - b2), (1 - b2, (d * d, 2 * np.abs(d) * of_d + of_d**2)))
    v = _sum(p, 3, (b2, state[1]), (1.0, new))
    c1, c2 = ((1 - b**t) if wrong.corrected else 1.0 for b in (b1, b2))
    root = np.sqrt(v[0] / c2 + a["eps"] * wrong.eps_inside) + a["eps"] * (not wrong.eps_inside)
    relative = v[1] / (2 * np.maximum(v[0] - v[1], 1e-300)) + p.gamma(6 + 1 / (1 - b2))
    along = m[0] / c1 / root
    of_along = (m[1] / c1 / root) * (1 + relative) + np.abs(along) * (relative + p.gamma(6 + 1 / (1 - b1)))
    return _moved(a, x, (along, of_along), p, wrong), [m, v]


def mistaken(
    op: str, attrs: Mapping[str, Any], values: Mapping[str, Array], p: Precision
) -> Iterator[tuple[str, dict[str, Array]]]:
    """What usual mistakes make of the steps."""
    for cause, wrong in CAUSES[op].items():
        yield cause, run(op, attrs, values, p, wrong)[0]
    last = {**values, "input.gradients": values["input.gradients"][-1:]}
    yield "the last step only", run(op, attrs, last, p)[0]
    others = {"weight decay left out": {"weight_decay": 0.0}}
    others |= {f"the learning rate {text}": {"lr": factor * attrs["lr"]} for factor, text in RATES}
    if op == "sgd":
        text = "nesterov where plain momentum is right, or the other way round"
        others[text] = {"nesterov": not attrs["nesterov"]}
    for cause, other in others.items():
        yield cause, run(op, {**attrs, **other}, values, p)[0]
