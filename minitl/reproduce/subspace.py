"""The uncompressed columns of the low-rank line: inputs of MobileNetV2's last convolutions, batch 128.

HOSVD (Nguyen et al., NeurIPS 2024, arXiv:2411.06346), ASI (ICML 2025, arXiv:2505.05086) and LANCE (arXiv:2509.21617)
count the inputs of the trained convolutions and nothing else: no norm, no activation, no state that
ASI carries from step to step. Their compressed columns depend on data (ranks are chosen by energy or a calibration), so
shapes cannot give them.
"""

from __future__ import annotations

from minitl.networks import mobilenet_v2
from minitl.reproduce.convolutions import of_network
from minitl.reproduce.gradient_filter import kept_bytes
from minitl.reproduce.result import Result

BATCH, RESOLUTION = 128, 224
PUBLISHED = {2: "30.62", 4: "57.42"}


def results() -> list[Result]:
    """Kept without compression, in MiB (printed as MB)."""
    convolutions, counted = of_network(mobilenet_v2(), RESOLUTION), f"inputs of convolutions, batch {BATCH}"
    rows = []
    for count, text in PUBLISHED.items():
        quantity, kept = f"kept, uncompressed, MobileNetV2, last {count}", BATCH * kept_bytes(convolutions[-count:])
        rows.append(Result("subspace", quantity, "MiB", text, kept / 2**20, counted))
    return rows
