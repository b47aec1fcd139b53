"""Figure 1: what one block keeps, part by part; 96 -> 576 -> 96 channels, 7x7, batch 8, SE 144."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minitl import methods, networks
from minitl.accounting import Ledger
from minitl.reproduce.result import Result
from minitl.reproduce.steps import paper_step

CONVENTION = "tape: ReLU6 2-bit codes, Hard-Swish its input; sign mask 1 bit"
BLOCKS: dict[str, dict[str, Any]] = {
    "V2": {"activation": "relu6", "kernel": 3, "se_channels": 0},
    "V3": {"activation": "hard_swish", "kernel": 5, "se_channels": 144},
}
TOTALS = {"V2 ft-blocks": "4.03", "V2 mobiletl": "2.16", "V3 ft-blocks": "6.67", "V3 mobiletl": "3.11"}
SAVINGS = {"V2": ("46.3", "46"), "V3": ("53.3", "53")}
# bar labels of the V3 block: what of the ledger each of them is
PARTS = {
    "an inner norm": ("0.91", ("depthwise_norm",)),
    "an inner convolution": ("0.90", ("depthwise",)),
    "an inner Hard-Swish": ("0.90", ("depthwise_act",)),
    "squeeze-and-excite": ("0.95", ("se_fc1", "se_act", "se_fc2", "se_gate", "se_scale")),
}


def ledgers() -> dict[str, Ledger]:
    """Each of the four bars, from a tape."""
    found = {}
    for block, attrs in BLOCKS.items():
        for method in ("ft-blocks", "mobiletl"):
            model = methods.get(method, blocks=1).apply(networks.irb(**attrs))
            found[f"{block} {method}"] = paper_step(model, batch=8, resolution=7).ledger
    return found


def results() -> list[Result]:
    """The bars' totals, the savings, and the labels of the parts."""
    bars = ledgers()
    rows = [
        Result("figure1", f"kept, {bar}", "MB", f"{TOTALS[bar]}+-0.01", bars[bar].kept_bytes / 1e6, CONVENTION)
        for bar in TOTALS
    ]
    for block, (text, figure) in SAVINGS.items():
        saving = 100 * (1 - bars[f"{block} mobiletl"].kept_bytes / bars[f"{block} ft-blocks"].kept_bytes)
        rows.append(Result("figure1", f"saving, {block}, in the text", "%", text, saving, CONVENTION))
        rows.append(Result("figure1", f"saving, {block}, in the figure", "%", figure, saving, CONVENTION))
    for part, (label, roles) in PARTS.items():
        rows.append(Result("figure1", f"kept, {part}, V3", "MB", label, _part(bars, roles) / 1e6, CONVENTION))
    return rows


def _part(bars: Mapping[str, Ledger], roles: tuple[str, ...]) -> int:
    return sum(row.bytes for row in bars["V3 ft-blocks"].rows if row.role in roles)
