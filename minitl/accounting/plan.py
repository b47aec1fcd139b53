"""Which method, on how many blocks, fits a budget: all of them are tried, on shapes alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minitl import methods
from minitl.accounting.predict import check_model, predict
from minitl.checks import as_number
from minitl.errors import RuleError, ShapeError, ValueRangeError, brief, lookup
from minitl.networks import Model, Network

QUANTITIES = {"kept": "kept_bytes", "total": "total_bytes", "peak": "peak_bytes", "flops": "flops"}


@dataclass(frozen=True)
class Entry:
    """One way to tune, and what a step of it takes (bytes, and FLOPs by the standard convention)."""

    method: str
    blocks: int | None
    kept_bytes: int
    total_bytes: int
    peak_bytes: int
    flops: int
    trained_parameters: int
    exact: bool

    @property
    def name(self) -> str:
        """Method and number of blocks."""
        return self.method if self.blocks is None else f"{self.method} {self.blocks}"

    @property
    def rank(self) -> tuple[int, bool, int]:
        """Greater is better: most trained parameters, then exact gradients, then fewer FLOPs."""
        return self.trained_parameters, self.exact, -self.flops

    def need(self, of: str) -> int:
        """What it takes of the quantity that is budgeted."""
        return int(getattr(self, QUANTITIES[of]))


@dataclass(frozen=True)
class Plan:
    """The best way within a budget, and its surroundings.

    `pareto` are the ways that no other matches in trained parameters for as little; `next` is
    the cheapest way that would be better than `best`, None if there is none.
    """

    budget: int
    of: str
    best: Entry
    pareto: tuple[Entry, ...]
    next: Entry | None
    entries: tuple[Entry, ...]


def candidates(model: Model) -> list[tuple[str, int | None]]:
    """Every method that a model has a place for, with every number of blocks."""
    return [
        (name, blocks)
        for name, known in methods.METHODS.items()
        if isinstance(model, Network) or not known.sides  # beside a single block there is none
        for blocks in (range(1, len(model.blocks) + 1) if known.takes_blocks else (None,))
    ]


def entries(
    model: Model,
    *,
    batch: int,
    resolution: int,
    optimizer_slots: int,
    apply: bool = False,
    pixels: bool = False,
    method: Callable[[str, int | None], methods.Method] = methods.get,
) -> tuple[Entry, ...]:
    """Every method, with every number of blocks it can take, applied in turn to a copy of `model`.

    `method` builds one from its name and blocks, with whatever options are to hold for all.
    """
    check_model(model)
    step: dict[str, Any] = {"optimizer_slots": optimizer_slots, "apply": apply, "pixels": pixels}
    found, model = [], copy.deepcopy(model)  # a method changes the network; int8 rounds its weights
    for name, blocks in candidates(model):
        try:
            if not method(name, blocks).apply(model).trained_parameters():
                continue  # a single block has no final linear layer for ft-last to train
            totals = predict(model, batch=batch, resolution=resolution, **step).totals
        except ShapeError:
            if not methods.METHODS[name].sides:
                raise
            continue  # its modules halve a map that is too small for it
        except RuleError:
            continue  # its own rules and one asked for exclude each other, or pixels
        assert totals.peak_bytes is not None
        found.append(
            Entry(
                method=name,
                blocks=blocks,
                kept_bytes=totals.kept_bytes,
                total_bytes=totals.total_bytes,
                peak_bytes=totals.peak_bytes,
                flops=totals.flops.total,
                trained_parameters=model.trained_count,
                exact=model.exact,
            )
        )
    return tuple(found)


def plan(ways: Sequence[Entry], *, budget: float, of: str) -> Plan:
    """The best of `ways` that takes at most `budget`; raises ValueRangeError, naming the smallest, where none does.

    `of` is one of QUANTITIES; others raise UnknownNameError.
    """
    lookup("quantity", of, QUANTITIES, op="plan")
    number = as_number(budget)
    if number is None or number < 0:
        raise ValueRangeError(op="plan", expected="a budget of at least 0", got=brief(budget))
    budget = int(number)
    best = _best(ways, budget, of)
    if best is None:
        least = min(ways, key=lambda way: way.need(of))
        what, less = f"bytes of {of}", "a smaller batch or resolution, int8 weights and checkpoints take"
        if of == "flops":
            what, less = "FLOPs", "a smaller batch or resolution takes"
        raise ValueRangeError(
            f"no method fits {budget:,} {what}",
            remedy=f"the smallest that would takes {least.need(of):,} ({least.name}); {less} less",
        )
    better = [way for way in ways if way.rank > best.rank]
    following = min(better, key=lambda way: (way.need(of), *(-r for r in way.rank)), default=None)
    return Plan(budget, of, best, pareto(ways, of), following, tuple(ways))


def bests(found: Plan) -> dict[str, Entry | None]:
    """The best way within the same number of bytes of each of kept, total and peak; None where nothing fits.

    What is kept is part of the total, and most of either is alive at the peak, with images and activations
    in flight; so they seldom choose alike.
    """
    return {of: _best(found.entries, found.budget, of) for of in ("kept", "total", "peak")}


def _best(ways: Iterable[Entry], budget: int, of: str) -> Entry | None:
    affordable = (way for way in ways if way.need(of) <= budget)
    return max(affordable, key=lambda way: (*way.rank, -way.need(of)), default=None)


def largest(fits: Callable[[int], bool], start: int, most: int) -> int:
    """The largest number up to `most` that fits, searched from `start` on; 0 where not even 1 does.

    What a step takes grows with its batch and its resolution, so the number after it does not fit.
    """
    low, high = 0, start
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def pareto(ways: Iterable[Entry], of: str) -> tuple[Entry, ...]:
    """The ways better ranked than every way that takes no more, from the cheapest up."""
    front: list[Entry] = []
    for way in sorted(ways, key=lambda way: (way.need(of), *(-r for r in way.rank))):
        if not front or way.rank > front[-1].rank:
            front.append(way)
    return tuple(front)
