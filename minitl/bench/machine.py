"""The machine: what it is, and how fast it multiplies and copies."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from minitl.bench.timing import once
from minitl.kernels import threads
from minitl.kernels.matmul import matmul
from minitl.version import VERSION

SIZE = 1536  # of the square matrices: 9 MB each, beyond most caches and large enough for BLAS to be at its best
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
        "blas": _blas(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "gemm_gflops": {str(n): _gemm_gflops(n) for n in sorted({1, count})},
        "copy_gb_per_s": _copy_rate(),
    }


def text(machine: dict[str, Any]) -> str:
    """The same for people, a few lines."""
    versions = ", ".join(f"{name} {number or '-'}" for name, number in machine["versions"].items())
    rates = ", ".join(f"{rate:.0f} on {n} thread{'s' * (n != '1')}" for n, rate in machine["gemm_gflops"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores; {machine['system']}; {machine['date']}\n"
        f"{versions}; BLAS {machine['blas']}\n"
        f"float32 products of {SIZE} x {SIZE}: {rates} GFLOP/s; "
        f"copying: {machine['copy_gb_per_s']:.1f} GB/s read and written"
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


def _blas() -> str:
    from threadpoolctl import threadpool_info

    found = (library for library in threadpool_info() if library["user_api"] == "blas")
    parts = ("internal_api", "version", "architecture")
    return "; ".join(" ".join(str(library[part]) for part in parts if library.get(part)) for library in found) or "-"


def _gemm_gflops(count: int) -> float:
    a, b = (np.random.default_rng(i).random((SIZE, SIZE), np.float32) for i in range(2))
    out = np.empty_like(a)
    threads.set_threads(count)
    return 2e-9 * SIZE**3 / min(once(lambda: matmul(a, b, out)) for _ in range(ROUNDS))


def _copy_rate() -> float:
    a = np.ones(COPIED // 8)
    b = np.empty_like(a)
    return 2e-9 * COPIED / statistics.median(once(lambda: np.copyto(b, a)) for _ in range(ROUNDS))
