"""The oracle does not cry wolf: an independent PyTorch implementation passes every case, by hand and by autograd."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from minitl import oracle
from minitl.oracle import mechanisms, updates

torch = pytest.importorskip("torch")

from torch_block import Native, Network, answer  # noqa: E402

BOTH_LAYOUTS = pytest.mark.parametrize("layout", ["nhwc", "nchw"])
BOTH_DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(scope="module", autouse=True)
def one_thread_of_torch() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def names(tensors: Any, prefix: str) -> set[str]:
    return {name for name in tensors if name.startswith(prefix)}


@cache
def cases(layout: str, dtype: str) -> list[Any]:
    return [e.case(layout, dtype) for e in oracle.entries() if e.op not in (*updates.ATTRS, *mechanisms.ATTRS)]


@pytest.mark.parametrize("kind", [Network, Native])
@BOTH_LAYOUTS
@BOTH_DTYPES
def test_torch_passes_every_case(layout: str, dtype: str, kind: type[Network]) -> None:
    worst: dict[str, tuple[float, str]] = {}
    wrong, count = [], 0
    for case in cases(layout, dtype):
        got = answer(case, kind)
        assert {str(tensor.dtype) for name, tensor in got.items() if name.startswith("grad")} <= {f"torch.{dtype}"}
        if kind is Network:
            assert names(got, "kept.") == names(case.expected, "kept."), case.name
        report = case.compare(got)
        if not report.ok:
            wrong.append(str(report))
        line = max(report.lines, key=lambda line: line.ratio)
        what = " ".join(word for word in (case.op, case.method or case.rule) if word)
        worst[what] = max(worst.get(what, (0.0, "")), (line.ratio, f"{line.tensor} of {case.name}"))
        count += 1
    print(f"\nPyTorch's largest error / bound in {count} cases, {kind.__name__}, {layout}, {dtype}")
    for what, (ratio, where) in sorted(worst.items(), key=lambda item: -item[1][0]):
        print(f"  {ratio:8.2g}  {what:24}  {where}")
    assert count
    assert not wrong, "\n".join(wrong)
