"""What a first step costs: importing, and compiling kernels or loading them from Numba's cache.

As a module, `python -m minitl.bench.cold NUMBER` times the first two steps of one case, in a process that has
run nothing before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

from minitl.bench.cases import BLOCKS, NETWORKS, Case, Tuning
from minitl.bench.timing import once
from minitl.training.progress import Bar

IMPORT = "import time; start = time.perf_counter(); import minitl; print(time.perf_counter() - start)"


def firsts() -> list[tuple[Case, Tuning]]:
    """The steps that are timed, of few and small images: compiling takes no longer for large ones."""
    small = [replace(NETWORKS[0], batch=2, resolution=64), BLOCKS[3]]
    return [(case, tuning) for case in small for tuning in case.tunings]


@dataclass(frozen=True)
class First:
    """Seconds that a first step takes beyond a second one, with an empty cache and with a filled one."""

    case: str
    method: str
    cold_s: float
    cached_s: float
    warm_s: float


def import_seconds() -> float:
    """Of `import minitl` in a new process."""
    return float(_python({}, "-c", IMPORT))


def compile_times(shown: Bar) -> Iterator[First]:
    """All of them, each in processes and with a cache of its own."""
    for number, (case, tuning) in enumerate(firsts()):
        with TemporaryDirectory() as cache:
            (cold, _), (cached, warm) = (_first_two(number, cache) for _ in range(2))
        first = First(case.name, case.label(tuning), cold - warm, cached - warm, warm)
        shown.advance(f"{case.name}, {case.label(tuning)}: {cold:.1f} s cold, {cached:.1f} s cached")
        yield first


def _first_two(number: int, cache: str) -> tuple[float, float]:
    first, second = json.loads(_python({"NUMBA_CACHE_DIR": cache}, "-m", __name__, str(number)))
    return first, second


def _python(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, check=True, text=True, capture_output=True).stdout


def main(arguments: Sequence[str]) -> None:
    """Print the seconds of two steps."""
    case, tuning = firsts()[int(arguments[0])]
    problem = case.problem(tuning)
    print(json.dumps([once(problem.step), once(problem.step)]))


if __name__ == "__main__":
    main(sys.argv[1:])
