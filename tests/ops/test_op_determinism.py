"""The same input gives the same bytes: run after run, on one thread or two, in a forked child, beside other threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import NAMES, Case, Dims, bounds, make, run, unit
from checks import check_same, check_within
from scripts import run_script
from threadpoolctl import threadpool_limits

from minitl import ops
from minitl.kernels import threads


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels part their work early, so that small data is in several chunks."""
    monkeypatch.setattr(threads, "WORTH_A_CHUNK", 1 << 18)


MAP = Dims(n=4, h=32, w=32, c=130, o=40, k=3)  # 2^19 elements and more
LARGE = {
    "conv": Dims(n=4, h=32, w=32, c=24, o=12),
    "folded_conv-conv": Dims(n=4, h=32, w=32, c=24, o=12),
    "linear": Dims(n=500, c=200, o=100),
    "global_avg_pool": Dims(n=2, h=64, w=64, c=130),
    "scale": Dims(n=2, h=64, w=64, c=130),
}
UNCHUNKED = (  # plain NumPy, on one thread
    ops.add, ops.add_channels, ops.avg_pool, ops.bilinear_up, ops.cross_entropy, ops.group_norm, ops.multiply,
)  # fmt: skip


@pytest.fixture(autouse=True)
def any_number_of_threads() -> Iterator[None]:
    yield
    threads.set_threads(os.cpu_count() or 1)


def large(name: str, dtype: str = "float32") -> Case:
    return make(NAMES[name], LARGE.get(name, MAP), dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_one_thread_and_two_give_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spans_seen: list[int] = []
    true_run = threads.run
    monkeypatch.setattr(threads, "run", lambda task, spans: (spans_seen.append(len(spans)), true_run(task, spans))[1])
    case, results = large(name), []
    for count in (1, 2, 2):
        threads.set_threads(count)
        with threadpool_limits(count, user_api="blas"):
            results.append(run(case))
    assert case.op in UNCHUNKED or max(spans_seen, default=0) > 1, "too small to be split"
    check_same(results[0], results[1])
    check_same(results[1], results[2])


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
assert threads._pool is not None
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["linear", "pointwise_conv", "folded_conv-pointwise_conv", "conv", "depthwise_conv"])
def test_the_portable_path_agrees_with_the_fast_one(name: str, dtype: str) -> None:
    """Both are within gamma_K of the exact sums of K terms, so within twice that of each other."""
    dims = Dims(n=4, h=6, w=5, c=70, o=30)
    case = make(NAMES[name], dims, dtype=dtype)
    portable = make(NAMES[name], replace(dims, flag=True), dtype=dtype)
    assert portable.keywords["attrs"] == {**portable.keywords["attrs"], **case.keywords["attrs"], "portable": True}
    assert all(np.array_equal(a, b) for a, b in zip(case.arrays, portable.arrays, strict=True))
    check_within(run(portable), run(case), bounds(case, 2 * unit(dtype)))
