"""The sparse update that trains most within a budget of bytes: how many blocks, and what share of their channels.

MCUNetV3 (Lin et al., NeurIPS 2022, arXiv:2206.15472) searches layer by layer for what helps accuracy most under such a
budget; here all ways of one share for all blocks are tried, on shapes alone, and the one that trains most numbers wins.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from minitl.accounting.plan import QUANTITIES
from minitl.accounting.predict import predict
from minitl.checks import expect_count
from minitl.errors import ValueRangeError, lookup
from minitl.methods import Method
from minitl.methods.sparse_update import one_of
from minitl.networks import Model

SHARES = (1, 2, 4, 8, 16)  # one channel of so many


def sparse_update_within(
    model: Model, budget: int, *, of: str = "kept", batch: int, resolution: int, optimizer_slots: int = 0
) -> Method:
    """The method `sparse-update` with the blocks and share that train most numbers with at most `budget` bytes.

    `of` is what is budgeted, one of `kept`, `total` and `peak`. Raises ValueRangeError, naming the smallest, where
    nothing fits.
    """
    lookup("quantity", of, {name: of for name in QUANTITIES if name != "flops"}, op="sparse-update")
    budget = expect_count("a budget", budget, least=0, op="sparse-update")
    tried, model = [], copy.deepcopy(model)
    for blocks in range(1, len(model.blocks) + 1):
        for share in SHARES:
            method = replace(one_of(share), blocks=blocks)
            totals = predict(
                method.apply(model), batch=batch, resolution=resolution, optimizer_slots=optimizer_slots
            ).totals
            tried.append((model.trained_count, -int(getattr(totals, QUANTITIES[of])), method))
    fitting = [way for way in tried if -way[1] <= budget]
    if not fitting:
        least = min(-need for _, need, _ in tried)
        remedy = f"the smallest that would is {least:,}"
        raise ValueRangeError(f"no sparse update fits {budget:,} of {of}", layer=model.name, remedy=remedy)
    return max(fitting, key=lambda way: way[:2])[2]
