"""The machine: what it is, and how fast it multiplies, copies, and hands over from thread to thread."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from minitl.bench.handover import handover_ns
from minitl.bench.timing import once
from minitl.kernels import pointwise, threads
from minitl.kernels.target import target
from minitl.kernels.tasks import Place, Recorder, Table
from minitl.version import VERSION

ROWS, INNER, TIMES = 28, 256, 400  # a product that stays in the first cache: rows x INNER x one panel, TIMES over
COPIED = 1 << 28  # bytes, beyond any cache
ROUNDS = 5


def describe(count: int) -> dict[str, Any]:
    """The machine by name, the versions that matter, and its rates; minitl is left on `count` threads."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": count,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"minitl": VERSION, **{name: _version(name) for name in ("numpy", "numba", "torch")}},
        "vector_bytes": target().vector_bytes,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "roof_gflops": {str(n): _roof(n) for n in sorted({1, count})},
        "copy_gb_per_s": _copy_rate(),
        "handover_ns": handover_ns(),
    }


def text(machine: dict[str, Any]) -> str:
    """The same for people, a few lines."""
    versions = ", ".join(f"{name} {number or '-'}" for name, number in machine["versions"].items())
    rates = ", ".join(f"{rate:.0f} on {n} thread{'s' * (n != '1')}" for n, rate in machine["roof_gflops"].items())
    alone, *together = machine["roof_gflops"].values()
    if together:
        rates += f" ({together[0] / alone:.2f} times as fast: what a step can gain)"
    handover = machine["handover_ns"]
    handed = "two threads did not run at once" if handover is None else f"from thread to thread {handover:.0f} ns"
    return (
        f"{machine['cpu']}, {machine['cores']} cores; {machine['system']}; {machine['date']}\n"
        f"{versions}; vectors of {machine['vector_bytes']} bytes\n"
        f"roof, a float32 tile product from the first cache: {rates} GFLOP/s; "
        f"copying: {machine['copy_gb_per_s']:.1f} GB/s read and written; {handed}"
    )


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _roof(count: int) -> float:
    """Multiply-adds of the register tile alone, each thread on small matrices of its own."""
    columns = target().vecs * target().lanes(4)
    x, weight = (
        np.random.default_rng(i).random(shape, np.float32) for i, shape in enumerate(((ROWS, INNER), (columns, INNER)))
    )
    panels, y = (
        np.empty(pointwise.packed_size(weight.shape, "float32", True), np.float32),
        np.empty((ROWS, columns), np.float32),
    )
    pointwise.pack_table(weight.shape, "float32", True).run(weight, panels)
    table = _repeated(columns, count)
    threads.set_threads(count)
    return (
        2e-9
        * count
        * TIMES
        * ROWS
        * INNER
        * columns
        / min(once(lambda: table.run(x, panels, y)) for _ in range(ROUNDS))
    )


def _repeated(columns: int, count: int) -> Table:
    record = Recorder()
    for _ in range(count):
        record.task()
        for _ in range(TIMES):
            y = record.scratch(ROWS * columns * 4)
            pointwise.product_calls(record, (0, ROWS), INNER, columns, "float32", (Place(2), Place(3), y))
    return record.table()


def _copy_rate() -> float:
    a = np.ones(COPIED // 8)
    b = np.empty_like(a)
    return 2e-9 * COPIED / statistics.median(once(lambda: np.copyto(b, a)) for _ in range(ROUNDS))
