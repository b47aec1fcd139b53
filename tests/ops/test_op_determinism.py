"""The same input gives the same bytes: run after run, on one thread or two, in a forked child, beside other threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cases import NAMES, Case, Dims, make, run
from checks import check_same
from scripts import run_script

from minitl.kernels import threads

MAP = Dims(n=4, h=32, w=32, c=130, o=40, k=3)  # 2^19 elements and more
LARGE = {
    "conv": Dims(n=4, h=32, w=32, c=24, o=12),
    "linear": Dims(n=500, c=200, o=100),
    "global_avg_pool": Dims(n=2, h=64, w=64, c=130),
    "scale": Dims(n=2, h=64, w=64, c=130),
}


@pytest.fixture(autouse=True)
def any_number_of_threads() -> Iterator[None]:
    yield
    threads.set_threads(os.cpu_count() or 1)


def large(name: str, dtype: str = "float32") -> Case:
    return make(NAMES[name], LARGE.get(name, MAP), dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_one_thread_and_several_give_the_same_bytes(name: str) -> None:
    case, results = large(name), []
    for count in (1, 2, 3, 8):
        threads.set_threads(count)
        results.append(run(case))
    for result in results[1:]:
        check_same(results[0], result)


def test_several_python_threads_at_once() -> None:
    threads.set_threads(2)
    names = [*NAMES] * 3
    alone = {name: run(large(name)) for name in NAMES}
    with ThreadPoolExecutor(4) as pool:
        for name, result in zip(names, pool.map(lambda name: run(large(name)), names), strict=True):
            check_same(alone[name], result)


FORK = """
import hashlib, os, sys
from cases import everything, run
from minitl.kernels import threads
from test_op_determinism import large

def digest():
    parts = [everything(run(large(name))) for name in ("pointwise_conv", "depthwise_conv", "batch_norm", "relu6-codes")]
    return hashlib.sha256(b"".join(a.tobytes() for part in parts for a in part.values())).digest()

threads.set_threads(2)
here = digest()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, digest())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.read(reader, 32) == here == digest()
print("same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_computes_the_same() -> None:
    assert run_script(FORK, path=Path(__file__).parent).strip() == "same"
