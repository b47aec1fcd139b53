"""Cases of optimizers: PyTorch passes them, and what is done otherwise is caught and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own import step

from minitl import MinitlError, oracle
from minitl.oracle import updates

NAMES = [entry.name for op in updates.ATTRS for entry in oracle.entries(f"{op}*")]
Torch = Callable[[Any, dict[str, Any]], Any]


def case_of(name: str) -> oracle.Case:
    (case,) = oracle.cases(name)
    return case


def by_torch(case: oracle.Case, dtype: str, **changed: Any) -> dict[str, Any]:
    """The steps of `torch.optim`, with some settings changed."""
    torch = pytest.importorskip("torch")
    a = {**case.attrs, **changed}
    p = torch.nn.Parameter(torch.from_numpy(case.inputs["input.x"].astype(dtype)))
    optimizer: Any
    if case.op == "sgd":
        dampening = a.get("dampening", 0)
        settings = {"momentum": a["momentum"], "weight_decay": a["weight_decay"], "nesterov": a["nesterov"]}
        optimizer, keys = torch.optim.SGD([p], a["lr"], dampening=dampening, **settings), ("momentum_buffer",)
    else:
        kind = torch.optim.AdamW if a.get("decoupled") else torch.optim.Adam
        optimizer = kind([p], a["lr"], (a["beta1"], a["beta2"]), a["eps"], a["weight_decay"])
        keys = ("exp_avg", "exp_avg_sq")  # type: ignore[assignment]
    for gradient in case.inputs["input.gradients"].astype(dtype):
        p.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    state = {n: optimizer.state[p].get(k) for n, k in zip(updates.STATE[case.op], keys, strict=True)}
    kept = {f"state_after.{n}": value if value is not None else gradient for n, value in state.items()}
    return {"output": p.detach(), **kept}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_and_minitl_pass(name: str, dtype: str) -> None:
    case = case_of(name)
    case.check(step(case, dtype))
    case.check(by_torch(case, dtype))


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("sgd-three-steps", {"dampening": 0.9}, "dampening"),
        ("sgd-three-steps", {"nesterov": True}, "nesterov"),
        ("sgd-nesterov", {"nesterov": False}, "nesterov"),
        ("sgd-three-steps", {"weight_decay": 0.0}, "weight decay left out"),
        ("sgd-three-steps", {"momentum": 0.0}, "momentum forgotten|the last step only"),
        ("sgd", {"lr": 0.5}, "learning rate 10x"),
        ("adam", {"decoupled": True}, "AdamW"),
        ("adam-three-steps", {"weight_decay": 0.0}, "weight decay left out"),
        ("adam-three-steps", {"lr": 0.1}, "learning rate 10x"),
    ],
)
def test_what_is_done_otherwise_is_named(name: str, changed: dict[str, Any], said: str) -> None:
    case = case_of(name)
    wrong = [line for line in case.compare(by_torch(case, "float32", **changed)).lines if not line.ok]
    assert wrong
    causes = {line.cause for line in wrong}
    assert any(part in cause for cause in causes for part in said.split("|")), causes


def adam(case: oracle.Case, *, corrected: bool, inside: bool) -> dict[str, np.ndarray]:
    a, p = case.attrs, case.inputs["input.x"].astype(np.float64)
    m = v = np.zeros_like(p)
    for t, g in enumerate(case.inputs["input.gradients"].astype(np.float64), 1):
        d = g + a["weight_decay"] * p
        m, v = a["beta1"] * m + (1 - a["beta1"]) * d, a["beta2"] * v + (1 - a["beta2"]) * d * d
        c1, c2 = (1 - a["beta1"] ** t, 1 - a["beta2"] ** t) if corrected else (1, 1)
        root = np.sqrt(v / c2 + a["eps"]) if inside else np.sqrt(v / c2) + a["eps"]
        p = p - a["lr"] * m / c1 / root
    return {"output": p, "state_after.first_moment": m, "state_after.second_moment": v}


def test_adam_by_its_formula_and_two_other_ones() -> None:
    case = oracle.make("adam", attrs={"eps": 1e-3, "steps": 2}, seed=3)
    case.check(adam(case, corrected=True, inside=False))
    assert "bias correction left out" in str(case.compare(adam(case, corrected=False, inside=False)))
    assert "eps inside the square root" in str(case.compare(adam(case, corrected=True, inside=True)))


def test_steps_whose_bounds_would_allow_anything_are_refused() -> None:
    """1 - beta2 = 1e-7, taken in float32, is off by more than half of itself."""
    with pytest.raises(MinitlError, match="further below 1"):
        oracle.make("adam", attrs={"beta2": 1 - 1e-7, "steps": 3})


def test_an_update_is_saved_and_loaded(tmp_path: Any) -> None:
    case = case_of("adam-three-steps")
    oracle.save(case, tmp_path)
    oracle.load(tmp_path).check(step(case, "float32"))
    case.check(step(case, "float32"), only="forward")
