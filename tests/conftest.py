"""Hypothesis profiles: `fast` repeats the same few examples on every run, `thorough` searches for new ones."""

from __future__ import annotations

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each of the many processes that tests start would compile minitl
sys.dont_write_bytecode = False

settings.register_profile(  # a busy machine is no reason to fail
    "fast",
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", max_examples=200, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite", action="store_true", help="write the golden files anew instead of comparing")


def pytest_collection_finish() -> None:
    """Half a million objects of pytest's are there to stay, and nobody need go through them.

    Nor through those of the tests 200 times a second: a quarter of the processor time of many tests was collecting.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 1, 50)
