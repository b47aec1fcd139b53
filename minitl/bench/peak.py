"""Peak memory of a step: by how much the process grows while it runs, in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from minitl.accounting import predict
from minitl.arrays import nbytes
from minitl.bench import rivals
from minitl.bench.cases import Case, Tuning
from minitl.bench.worker import ending_children
from minitl.kernels import threads
from minitl.training.workers import deaf

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # to clear_refs: sets VmHWM, the largest resident size so far, back to the present one
TINY = 2  # images in the batch that warms up


def peak_bytes(case: Case, tuning: Tuning, variant: str | None, count: int) -> int | None:
    """Growth of resident memory over minitl's step, or over a PyTorch variant's; None where the system cannot tell.

    Input and weights are there before. Libraries, kernels and threads are too: a step of a few
    small images comes first.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as alone, ending_children():
        with deaf():
            grown = alone.submit(_measure, case, tuning, variant, count)
        return grown.result()


def predicted_growth(case: Case, tuning: Tuning) -> int:
    """What minitl foresees of it: the predicted peak without the weights and images that are there before."""
    model = case.model(tuning)
    totals = predict(model, batch=case.batch, resolution=case.resolution).totals
    assert totals.peak_bytes is not None
    images = nbytes((case.batch, case.resolution, case.resolution, model.input_channels), model.dtype)
    return totals.peak_bytes - totals.resident_bytes - images


def growth(step: Callable[[], object]) -> int | None:
    """Bytes by which the process was larger, at most, while `step` ran than before."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc's: hand back what was freed, or the step grows into it unseen
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text(RESET_PEAK)
        before = _status("VmRSS")
        step()
        return _status("VmHWM") - before
    except OSError:
        return _growth_of_maximum(step)


def _measure(case: Case, tuning: Tuning, variant: str | None, count: int) -> int | None:
    threads.set_threads(count)
    tiny = replace(case, batch=TINY, resolution=min(case.resolution, 64 if case.network != "irb" else 7))
    _step(tiny, tuning, variant, count)()
    return growth(_step(case, tuning, variant, count))


def _step(case: Case, tuning: Tuning, variant: str | None, count: int) -> Callable[[], object]:
    return rivals.build(case, tuning, variant, count) if variant else case.problem(tuning).step


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{STATUS} does not tell {name}")
    return int(found[1]) * 1024


def _growth_of_maximum(step: Callable[[], object]) -> int | None:
    """The same where the largest size so far cannot be reset; None if the step stayed below an earlier one."""
    try:
        import resource
    except ImportError:
        return None

    def largest() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    before = largest()
    step()
    return largest() - before or None
