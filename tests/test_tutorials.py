"""Every tutorial runs, and what the first one derives by hand is right."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
TUTORIALS = [FOLDER / "one_block_by_hand.py"]
ANSWER = re.compile(r"^# (print\(.*)$", re.MULTILINE)  # a line that the learner is to uncomment
SWITCHES = {
    "vanilla": {"shift_only": False, "signs": False},
    "shift only": {"shift_only": True, "signs": False},
    "signs only": {"shift_only": False, "signs": True},
    "mobiletl": {"shift_only": True, "signs": True},
}
BLOCKS = {  # batch, height, width, channels, expanded, outputs, kernel
    "residual": (2, 7, 5, 3, 11, 3, 3),
    "no residual": (3, 3, 5, 4, 9, 5, 5),
}
EITHER_BLOCK = pytest.mark.parametrize("sizes", BLOCKS.values(), ids=list(BLOCKS))


@pytest.fixture(scope="module")
def by_hand() -> ModuleType:
    path = FOLDER / "one_block_by_hand.py"
    spec = importlib.util.spec_from_file_location("one_block_by_hand", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_tutorials() -> None:
    assert TUTORIALS


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs_as_a_script_with_its_answers(path: Path, tmp_path: Path) -> None:
    """In an empty folder, in which it leaves nothing."""
    script, folder = tmp_path / path.name, tmp_path / "empty"
    script.write_text(ANSWER.sub(r"\1", path.read_text(encoding="utf-8")), encoding="utf-8")
    folder.mkdir()
    command = [sys.executable, "-W", "error::RuntimeWarning", str(script)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(folder.iterdir())


def test_the_exercises_of_the_first_tutorial_have_answers_to_uncomment() -> None:
    assert len(ANSWER.findall((FOLDER / "one_block_by_hand.py").read_text(encoding="utf-8"))) == 4


def draw(by_hand: ModuleType, sizes: tuple[int, ...], seed: int) -> tuple[Any, Any, Any]:
    """Parameters, input and output gradient of a random block."""
    batch, height, width, channels, expanded, outputs, kernel = sizes
    rng = np.random.default_rng(seed)
    p = by_hand.random_block(rng, channels, expanded, outputs, kernel)
    x = rng.standard_normal((batch, height, width, channels))
    return p, x, rng.standard_normal((batch, height, width, outputs))


@pytest.mark.parametrize("seed", [0, 1])
@EITHER_BLOCK
@pytest.mark.parametrize("method", ["vanilla", "shift only"])
def test_exact_backward_by_hand_is_the_slope_of_the_forward(
    by_hand: ModuleType, method: str, sizes: tuple[int, ...], seed: int
) -> None:
    """By central differences, for the input and every parameter on its own, along a random direction."""
    p, x, gy = draw(by_hand, sizes, seed)
    switches = SWITCHES[method]
    grads = by_hand.backward(by_hand.forward(x, p, **switches)[1], gy, p)
    rng, d = np.random.default_rng(100 + seed), 1e-6
    values = {**p, "x": x}
    for name, grad in grads.items():
        assert grad.shape == values[name].shape
        t = rng.standard_normal(grad.shape)

        def loss(step: float, name: str = name, t: Any = t) -> Any:
            moved = {**values, name: values[name] + step * t}
            return (gy * by_hand.forward(moved.pop("x"), moved, **switches)[0]).sum()

        slope = (loss(d) - loss(-d)) / (2 * d)
        scale = np.sqrt((grad**2).sum() * (t**2).sum())  # the slope itself may be near 0 by chance
        assert abs(slope - (grad * t).sum()) < 1e-7 * scale, name


@EITHER_BLOCK
@pytest.mark.parametrize("method", SWITCHES)
def test_what_is_trained_by_hand(by_hand: ModuleType, method: str, sizes: tuple[int, ...]) -> None:
    p, x, gy = draw(by_hand, sizes, 0)
    grads = by_hand.backward(by_hand.forward(x, p, **SWITCHES[method])[1], gy, p)
    frozen = {name for name in p if "running" in name}
    if SWITCHES[method]["shift_only"]:
        frozen |= {"expand_norm.weight", "depthwise_norm.weight"}
    assert set(grads) == set(p) - frozen | {"x"}


@EITHER_BLOCK
@pytest.mark.parametrize("method", SWITCHES)
def test_backward_by_hand_in_float32_stays_there(by_hand: ModuleType, method: str, sizes: tuple[int, ...]) -> None:
    p, x, gy = draw(by_hand, sizes, 0)
    p = {name: array.astype(np.float32) for name, array in p.items()}
    y, kept = by_hand.forward(x.astype(np.float32), p, **SWITCHES[method])
    grads = by_hand.backward(kept, gy.astype(np.float32), p)
    assert {a.dtype.name for a in (y, *grads.values())} == {"float32"}
    assert {a.dtype.name for a in kept.values()} <= {"float32", "uint8"}
