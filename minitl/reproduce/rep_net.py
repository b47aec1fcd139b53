"""Rep-Net on MobileNetV3-Large: what its six modules keep and hold, and what the frozen backbone keeps all the same.

Yang, Rakin & Fan, "Rep-Net", CVPR 2022; modules as released (ASU-ESIC-FAN-Lab/RepNet,
`repnet/model/reprogram.py`), which is the method `rep-net`. The published tables could not be read, so
all figures here are re-derived, for batch 8 at 224 in float32: once by hand from shapes, and here from
the ledger.

The released profiler does not know torchvision's Hard-Swish and counts 0 for it and for the product of
squeeze-and-excite. Yet a gradient crosses the frozen backbone, which keeps for it ten times what the
modules do; `ft-bias`, which crosses the same activations, stands for it here.
"""

from __future__ import annotations

from minitl import methods, networks
from minitl.accounting import Ledger, predict
from minitl.methods.tinytl import is_side
from minitl.reproduce.result import REDERIVED, Result

BATCH, RESOLUTION, CLASSES = 8, 224, 10
KEPT, PARAMETERS = "6704800", "438632"
BACKBONE = {  # network, rule of its activations: kept bytes
    ("mobilenet_v3_large", ""): "69969368",
    ("mobilenet_v3_large", "hard_swish=sign"): "23120184",
    ("mobilenet_v2", ""): "12254208",
    ("mobilenet_v2", "relu6=sign"): "6148416",
}
PARTS = {"hard_swish": "48360448", "scale": "19246848"}


def results() -> list[Result]:
    """The six modules, and the backbone with and without approximate slopes."""
    tuned = methods.get("rep-net").apply(networks.mobilenet_v3_large(CLASSES))
    kept = sum(row.bytes for row in predict(tuned, batch=BATCH, resolution=RESOLUTION).rows if is_side(row.role))
    layers = [layer for layer in tuned.layers() if is_side(layer.role)]
    parameters = sum(p.value.size for layer in layers for p in layer.parameters.values())
    rows = [
        _rederived("kept by the six modules, mobilenet_v3_large", "bytes", KEPT, kept, "the ledger of rep-net"),
        _rederived("parameters of the six modules, mobilenet_v3_large", "", PARAMETERS, parameters, "trained ones"),
    ]
    for (network, rule), text in BACKBONE.items():
        found = _backbone(network, rule)
        quantity = f"kept by the frozen backbone, {network}, {rule or 'baseline rules'}"
        rows.append(_rederived(quantity, "bytes", text, found.kept_bytes, "slopes below a bias"))
    baseline = _backbone("mobilenet_v3_large", "").rows
    for op, text in PARTS.items():
        own = sum(row.bytes for row in baseline if row.op == op)
        rows.append(_rederived(f"of these, {op}, mobilenet_v3_large", "bytes", text, own, "baseline rules"))
    return rows


def _rederived(quantity: str, unit: str, text: str, computed: int, convention: str) -> Result:
    return Result("rep-net", quantity, unit, text, computed, convention, REDERIVED)


def _backbone(network: str, rule: str) -> Ledger:
    rules = dict([rule.split("=")]) if rule else {}
    model = methods.get("ft-bias", rules=rules).apply(networks.get(network, num_classes=CLASSES))
    return predict(model, batch=BATCH, resolution=RESOLUTION)
