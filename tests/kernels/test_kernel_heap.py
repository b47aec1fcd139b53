"""Freed memory stays with the process, where the C library can be asked for that."""

from __future__ import annotations

import sys

import pytest
from scripts import run_script

PAGES = """
import resource, sys
import numpy as np
from minitl.kernels.heap import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    arrays = [np.zeros(30_000_000, np.uint8) for _ in range(3)]
    for array in arrays:
        array[:] = 1
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it asks glibc")
def test_kept_memory_is_not_asked_for_again() -> None:
    """Steps of 90 MB take no new pages, where without it they take thousands (or hundreds of huge ones) each."""
    kept, plain = (int(run_script(PAGES, how)) for how in ("keep", "default"))
    assert kept < plain / 4
