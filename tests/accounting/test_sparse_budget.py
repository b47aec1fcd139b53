"""The sparse update within a budget: it fits, nothing that fits trains more, and what does not fit is told."""

from __future__ import annotations

import pytest
from models import trained

import minitl
from minitl.accounting import measure, predict, sparse_update_within
from minitl.accounting.sparse_budget import SHARES
from minitl.errors import MinitlError
from minitl.methods.sparse_update import one_of

TABLE = {
    "num_classes": 3, "stem": {"channels": 16}, "block": {"expansion": 2},
    "stages": [{"channels": 16, "stride": 2}, {"channels": 24}],
}  # fmt: skip
STEP = {"batch": 2, "resolution": 16}


@pytest.mark.parametrize("of", ["kept", "peak"])
def test_what_is_chosen_fits_and_trains_most(of: str) -> None:
    net = minitl.networks.from_table(TABLE)
    ways = []
    for share in SHARES:
        for blocks in (1, 2):
            one_of(share).with_blocks(blocks).apply(net)
            totals = predict(net, **STEP).totals
            ways.append((totals.kept_bytes if of == "kept" else totals.peak_bytes, net.trained_count))
    needs = sorted(need for need, _ in ways if need)
    for budget in (needs[0], needs[len(needs) // 2] + 1, needs[-1]):
        best = sparse_update_within(net, budget, of=of, **STEP).apply(net)
        assert best.trained_count == max(count for need, count in ways if need and need <= budget)
        got = measure(best, **STEP)
        assert (got.traced_bytes if of == "kept" else got.predicted_peak_bytes) <= budget
    with pytest.raises(
        MinitlError, match=f"no sparse update fits {needs[0] - 1:,} of {of}; the smallest that would is"
    ):
        sparse_update_within(net, needs[0] - 1, of=of, **STEP)


def test_bad_budgets() -> None:
    net = trained(minitl.networks.from_table(TABLE), "ft-all")
    with pytest.raises(MinitlError, match="expected a budget of at least 0, got -1"):
        sparse_update_within(net, -1, **STEP)
    with pytest.raises(MinitlError, match="unknown quantity 'flops'"):
        sparse_update_within(net, 1, of="flops", **STEP)
    assert net.method == "ft-all"
