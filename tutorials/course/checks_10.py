"""Checks of tutorial 10, plan and your own method."""

from __future__ import annotations

from typing import Any

import minitl
import numpy as np
from minitl.layers import Layer, LayerPlan

from course.attempt import Attempt, NotYet
from course.case import Case
from course.exercise import exercise

ASKED = 45
LIMIT, TRAINED = 1_000_000, 15_648


class Peak:
    """A peak that grows with the batch from a floor, and counts how often it is asked."""

    def __init__(self, case: Case) -> None:
        self.floor, self.slope = (
            int(case.rng.integers(low, 9 * low)) for low in (1_000_000, 2_000)
        )
        self.bend, self.steep = int(case.rng.integers(3, 300)), int(case.rng.integers(2, 5))
        self.asked = 0

    def __call__(self, batch: int) -> int:
        """Bytes; steeper from the bend on."""
        self.asked += 1
        if self.asked > 20 * ASKED:
            raise NotYet(
                f"You have asked peak more than {20 * ASKED} times: double the batch, then halve the gap."
            )
        if batch < 1:
            raise NotYet(f"You asked for the peak of a batch of {batch}; the smallest is 1.")
        return self.at(batch)

    def at(self, batch: int) -> int:
        """The same, not counted."""
        return self.floor + self.slope * (batch + (self.steep - 1) * max(0, batch - self.bend))


@exercise(
    "10a",
    hints=(
        "If one image does not fit, the answer is 0. Else double the batch until it no longer fits: the answer is "
        "between the last two. Halve that gap until it is 1.",
        "low, high = 1, 2; while peak(high) <= budget: low, high = high, 2 * high; then while high - low > 1 take the "
        "middle, and let it be low if it fits, high if not.",
    ),
)
def batch_within(case: Case, largest_batch: Attempt) -> None:
    """At exact equality, one byte below, far up, and where nothing fits."""
    for goal in (0, 1, 2, int(case.rng.integers(10, 400)), int(case.rng.integers(10_000, 10**6))):
        for short in (0, 1):
            peak = Peak(case)
            budget = peak.at(goal) - short if goal else peak.at(1) - 1
            right = max(0, goal - short) if goal else 0
            got = largest_batch(peak, budget)
            case.need(
                isinstance(got, int | np.integer),
                f"The batch should be an int, and is {type(got).__name__}.",
            )
            if got != right:
                _why_not(case, int(got), right, budget, peak)
            case.need(
                peak.asked <= ASKED,
                f"Right, but peak was asked {peak.asked} times: double the batch, then halve the gap.",
            )


def _why_not(case: Case, got: int, right: int, budget: int, peak: Peak) -> None:
    first, second = peak.at(1), peak.at(2)
    case.need(right or got != 1, "Not even one image fits here: the answer is 0.")
    case.need(
        got != max(1, int(budget // first)) and got != int(budget // first),
        "The peak is no multiple of that of one image: it has a floor (parameters) whatever the batch.",
    )
    line = int((budget - first) // (second - first) + 1)
    case.need(
        got != line,
        "The peak is no straight line through two batches: it can get steeper. Ask for more of it.",
    )
    case.need(got != right - 1, "One too few: a peak equal to the budget fits.")
    case.need(got != right + 1, "One too many: yours is the first batch that does not fit.")
    case.need(
        got != 1 << (right.bit_length() - 1),
        "This is the largest power of two that fits; go on from there.",
    )
    raise NotYet(
        f"{got}, expected {right}: its peak is {peak.at(right) if right else first:,} of {budget:,}."
    )


@exercise(
    "10b",
    hints=(
        "Whose inputs are small? Every wide input costs 903,168 bytes, whoever keeps it; the block's own input costs "
        "150,528. Count what each convolution's weight would train.",
        "Train expand's weight instead of depthwise's: LayerPlan(train=frozenset({'weight'})) for the role `expand`, "
        "{'bias'} for norms, LayerPlan(rule='band') for expand_act and depthwise_act, LayerPlan() for all else.",
    ),
)
def policy_within(case: Case, my_policy: Attempt) -> None:
    """Applied to the block; what is wrong is told from its ledger."""
    block = minitl.networks.irb(activation="relu6", se_channels=0)

    def policy(layer: Layer, blocks: int) -> LayerPlan:
        plan = my_policy(layer, blocks)
        case.need(
            isinstance(plan, LayerPlan),
            f"{layer.role}: a policy returns a LayerPlan, not {plan!r}.",
        )
        assert isinstance(plan, LayerPlan)
        return plan

    try:
        minitl.methods.Method("yours", "", policy, takes_blocks=True, blocks=1).apply(block)
    except minitl.MinitlError as error:
        raise NotYet(str(error)) from None
    trained = block.trained_parameters()
    count = sum(parameter.size for parameter in trained.values())
    case.need(
        trained,
        "It trains nothing. The block's height is 1, and blocks is 1: tune where height <= blocks.",
    )
    case.need(
        block.exact,
        "A slope is approximate: `sign` is MobileTL's rule; `band` and `output` are exact.",
    )
    rows = minitl.accounting.predict(block, batch=8, resolution=7).rows
    kept, largest = sum(row.bytes for row in rows), max(rows, key=lambda row: row.bytes)
    why = " and ".join(need.removeprefix("grad_") + " gradient" for need in largest.needed_for)
    case.need(
        kept < LIMIT,
        f"It keeps {kept:,} bytes. The largest row: {largest.layer} keeps {largest.tensor}, {largest.bytes:,} bytes, "
        f"for its {why}"
        + (f", shared with {largest.shared_with[0]}." if largest.shared_with else "."),
    )
    case.need(
        count > TRAINED,
        f"It keeps {kept:,} bytes, which is fine, and trains {count:,}: not more than {TRAINED:,}.",
    )
    for layer in minitl.networks.irb(activation="relu6", se_channels=0).layers():
        layer.height = 2
        below = my_policy(layer, 1) == LayerPlan()
        case.need(
            below,
            f"{layer.role}: what is below the tuned blocks (height > blocks) should be frozen.",
        )


@exercise(
    "10c",
    hints=(
        "Keep those that fit, then take the greatest by a tuple: tuples are compared from the first element on.",
        "max(fitting, key=lambda way: (way['trained'], way['exact'], -way['flops']))['name'], and None where the list "
        "is empty.",
    ),
)
def ranked(case: Case, best_way: Attempt) -> None:
    """Many ties, so that each part of the rank decides at times."""
    draws = [_ways(case) for _ in range(20)]
    budgets = [int(case.rng.choice([way["peak"] for way in ways])) for ways in draws]
    got = [
        best_way([dict(way) for way in ways], budget)
        for ways, budget in zip(draws, budgets, strict=True)
    ]

    def chosen(**change: Any) -> list[Any]:
        return [_first(ways, budget, **change) for ways, budget in zip(draws, budgets, strict=True)]

    right = chosen()
    case.need(
        not any(isinstance(name, dict) for name in got),
        'It returns the dictionary; asked for is its name, way["name"].',
    )
    for sentence, change in RANKS.items():
        case.need(got != chosen(**change) or got == right, sentence)
    for name, expected, ways, budget in zip(got, right, draws, budgets, strict=True):
        both = "; ".join(str(way) for way in ways if way["name"] in (name, expected))
        case.need(
            name == expected,
            f"{name!r}, expected {expected!r} for a budget of {budget:,}: {both or 'nothing fits'}.",
        )
    case.need(best_way(draws[0], 1) is None, "Where nothing fits it should return None.")


def _ways(case: Case) -> list[dict[str, Any]]:
    return [
        {
            "name": f"way {i}",
            "trained": int(case.rng.integers(1, 4)) * 1000,
            "exact": bool(case.rng.integers(2)),
            "flops": int(flops) * 1000,
            "peak": int(case.rng.integers(1, 5)) * 1000,
        }
        for i, flops in enumerate(case.rng.permutation(12) + 1)
    ]


def _first(
    ways: list[dict[str, Any]],
    budget: int,
    rank: Any = None,
    fits: Any = lambda peak, budget: peak <= budget,
) -> Any:
    rank = rank or (lambda way: (way["trained"], way["exact"], -way["flops"]))
    return max((w for w in ways if fits(w["peak"], budget)), key=rank, default={"name": None})[
        "name"
    ]


RANKS: dict[str, dict[str, Any]] = {
    "A peak equal to the budget fits.": {"fits": lambda peak, budget: peak < budget},
    "The budget is not looked at.": {"fits": lambda peak, budget: True},
    "Of equally many trained, exact comes before fewer FLOPs.": {
        "rank": lambda w: (w["trained"], -w["flops"])
    },
    "Among equals the one with fewer FLOPs is better; yours has more.": {
        "rank": lambda w: (w["trained"], w["exact"], w["flops"])
    },
    "The most trained comes first, before exactness.": {
        "rank": lambda w: (w["exact"], w["trained"], -w["flops"])
    },
    "You take the one that needs least; asked for is the one that trains most.": {
        "rank": lambda w: (-w["peak"], w["trained"], w["exact"], -w["flops"])
    },
}
