"""The results figure's memory axis: ProxylessNAS-Mobile at 224, batch 8, 100 classes; 1 to 4 tuned blocks.

    memory = parameters (trained 4 bytes, frozen 1) + max(forward-only peak, kept + c)

The forward-only peak is that of TinyTL's rule (a leaf's input and output). It binds where few
blocks are tuned; there the published figures follow without any constant. Where the kept
tensors bind, they call for a further c of 12.95 to 13.0 MB, for which we know no reason.
We print the figures with c = 0, and so the differences.
"""

from __future__ import annotations

from minitl import methods
from minitl.networks import proxyless_mobile
from minitl.reproduce.lite_residual import leaves
from minitl.reproduce.result import Result
from minitl.reproduce.steps import paper_step
from minitl.reproduce.tinytl import only_last, training_memory

BATCH, RESOLUTION, CLASSES = 8, 224, 100
PUBLISHED = {
    "ft-blocks": ("32.22+-0.06", "35.47+-0.06", "40.56+-0.06", "50.17+-0.06"),
    "mobiletl": ("32.22+-0.06", "32.95+-0.06", "33.70+-0.06", "38.91+-0.06"),
}


def results() -> list[Result]:
    """Training memory for each method and number of blocks, and the constant it would take where kept tensors bind."""
    network = proxyless_mobile(CLASSES)
    forward_only = training_memory(leaves(network, RESOLUTION, lite_residual=False), only_last, batch=BATCH).activations
    rows = []
    for method, published in PUBLISHED.items():
        for blocks, text in enumerate(published, start=1):
            step = paper_step(methods.get(method, blocks).apply(network), batch=BATCH, resolution=RESOLUTION)
            binds = "forward-only peak binds" if forward_only >= step.kept_bytes else "kept tensors bind"
            memory = step.parameter_bytes + max(forward_only, step.kept_bytes)
            convention = f"parameters + max(forward-only peak, kept), {binds}"
            quantity = f"training memory, {method} {blocks}"
            rows.append(Result("results", quantity, "MB", text, memory / 1e6, convention))
    return rows
