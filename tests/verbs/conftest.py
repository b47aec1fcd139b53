"""What `plan` and `reproduce` compute is computed once: dozens of tests ask, and few ask something new."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from minitl.accounting.plan import Entry, entries
from minitl.kernels import threads
from minitl.methods import Method
from minitl.networks import Model, Network
from minitl.verbs.reproduce import ITEMS

Tried = dict[object, tuple[Entry, ...]]
COMPUTED = {name: cache(rows) for name, rows in ITEMS.items()}


@pytest.fixture(scope="session")
def tried() -> Tried:
    return {}


@pytest.fixture(autouse=True)
def tried_once(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """By network, step and options; a block takes no time."""

    def known(model: Model, *, method: Callable[[str, int | None], Method], **step: Any) -> tuple[Entry, ...]:
        if not isinstance(model, Network):
            return entries(model, method=method, **step)
        about = json.dumps([model.table, model.dtype, model.normalisation, step, threads.count()], default=str)
        key = about, repr(method("mobiletl", 1))  # which tells its options
        if key not in tried:
            tried[key] = entries(model, method=method, **step)
        return tried[key]

    monkeypatch.setattr("minitl.verbs.plan.entries", known)


@pytest.fixture(autouse=True)
def reproduced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in COMPUTED.items():
        monkeypatch.setitem(ITEMS, name, rows)
