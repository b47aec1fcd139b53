"""What gradients take where each is applied as soon as it is complete (LOMO: Lv et al. 2023, arXiv:2306.09782).

Batch 8 at 224, 10 classes; `mobiletl` tunes 5 blocks. Of the gradients only the largest is then held at a time. No
paper prints these: they are re-derived, once from shapes by hand, and here from the ledger (`--apply`).
"""

from __future__ import annotations

from minitl import methods, networks
from minitl.accounting import predict
from minitl.reproduce.result import REDERIVED, Result

HELD = {  # network, method: bytes of all gradients, and of those held where they are applied as they come
    ("mobilenet_v2", "ft-all"): ("8946728", "1638400"),
    ("mobilenet_v3_large", "mobiletl"): ("16061640", "4915200"),
    ("mobilenet_v3_small", "mobiletl"): ("5543784", "2359296"),
}


def results() -> list[Result]:
    """Gradient bytes of three steps, both ways."""
    rows = []
    for (network, method), texts in HELD.items():
        tuned = methods.get(method).apply(networks.get(network, num_classes=10))
        for apply, text in zip((False, True), texts, strict=True):
            held = predict(tuned, batch=8, resolution=224, apply=apply).totals.gradient_bytes
            quantity = f"gradients, {network}, {method}{', applied as they come' * apply}"
            rows.append(Result("fused-update", quantity, "bytes", text, held, "the ledger", REDERIVED))
    return rows
