"""Stand-ins for arrays: what they count, however their making ends."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from minitl.shadow import Meter, Phantom


def test_bytes_are_counted_for_as_long_as_it_lives() -> None:
    meter = Meter()
    phantom = Phantom((3, 5), "float32", meter)
    assert (meter.live, meter.peak) == (60, 60)
    del phantom
    assert (meter.live, meter.peak) == (0, 60)


def test_one_that_ctrl_c_kept_from_being_made_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does Python complain of what is raised as it is let go of."""
    meter, complaints = Meter(), list[object]()

    def interrupt(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("minitl.shadow.nbytes", interrupt)
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(KeyboardInterrupt):
        Phantom((3, 5), "float32", meter)
    assert (meter.live, meter.peak, complaints) == (0, 0, [])
