"""Without the compiler everything runs on the plain loops one reads, to the same bytes: a whole training step."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import run_script

STEP = """
import hashlib
from models import batch, stir, trained
import minitl
from minitl.step import forward_backward
from minitl.tape import Tape
from minitl.training.optimizers import SGD

for method in ("mobiletl", "ft-all"):
    net = stir(trained(minitl.networks.digits_irb(), method))
    images, labels = batch(net, n=2, resolution=8)
    forward_backward(net, Tape(), images, labels, apply=SGD(0.1, momentum=0.9))
    state = net.state_dict()
    print(hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest())
"""


@pytest.fixture(scope="module")
def compiled() -> str:
    return run_script(STEP, path=Path(__file__).parents[1])


def test_a_training_step_gives_the_same_bytes(compiled: str) -> None:
    assert run_script(STEP, path=Path(__file__).parents[1], NUMBA_DISABLE_JIT="1") == compiled
