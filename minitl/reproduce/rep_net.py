"""Rep-Net on MobileNetV3-Large: what its six modules keep and hold, and what the frozen backbone keeps all the same.

Yang, Rakin & Fan, "Rep-Net", CVPR 2022; modules as released (ASU-ESIC-FAN-Lab/RepNet,
`repnet/model/reprogram.py`). A module is pool 2 -> k x k convolution (groups 2; 1 in the first) ->
norm -> ReLU -> 1x1 -> norm -> bilinear up. The first reads the image, pooled by 4; the others the
input of their block. The published tables could not be read, so all figures here are re-derived: from
shapes, for batch 8 at 224 in float32, with batch norms.

The released profiler does not know torchvision's Hard-Swish and counts 0 for it and for the product of
squeeze-and-excite. Yet a gradient crosses the frozen backbone, which keeps for it ten times what the
modules do; `ft-bias`, which crosses the same activations, stands for it here.
"""

from __future__ import annotations

from typing import NamedTuple

from minitl import methods, networks
from minitl.accounting import Ledger, predict
from minitl.arrays import nbytes
from minitl.bits import packed_shape
from minitl.networks.sizes import make_divisible
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


class Module(NamedTuple):
    """Channels coming in and going out, side of the map before pooling, kernel and groups of the first convolution."""

    inputs: int
    outputs: int
    side: int
    kernel: int = 5
    groups: int = 2

    @property
    def middle(self) -> int:
        """Channels between the two convolutions."""
        return make_divisible(self.inputs)

    @property
    def parameters(self) -> int:
        """Weights of the two convolutions, scales and shifts of the two norms."""
        grouped = self.middle * self.inputs // self.groups * self.kernel**2
        return grouped + self.middle * self.outputs + 2 * self.middle + 2 * self.outputs

    @property
    def kept_bytes(self) -> int:
        """Both convolutions' inputs, both norms' normalised inputs and inverse deviations, a bit per ReLU."""

        def map_of(channels: int) -> tuple[int, int, int, int]:
            return BATCH, self.side // 2, self.side // 2, channels

        norms = sum(nbytes(map_of(c), "float32") + nbytes((c,), "float32") for c in (self.middle, self.outputs))
        mask = nbytes(packed_shape(map_of(self.middle), 1), "uint8")
        return nbytes(map_of(self.inputs), "float32") + norms + mask + nbytes(map_of(self.middle), "float32")


LARGE = (
    Module(3, 24, 56, groups=1), Module(24, 40, 56), Module(40, 80, 28),
    Module(80, 112, 14), Module(112, 160, 14), Module(160, 160, 7, kernel=3),
)  # fmt: skip


def results() -> list[Result]:
    """The six modules, and the backbone with and without approximate slopes."""
    kept, parameters = sum(m.kept_bytes for m in LARGE), sum(m.parameters for m in LARGE)
    rows = [
        _rederived("kept by the six modules, mobilenet_v3_large", "bytes", KEPT, kept, "float32, batch norms"),
        _rederived("parameters of the six modules, mobilenet_v3_large", "", PARAMETERS, parameters, "trained ones"),
    ]
    for (network, rule), text in BACKBONE.items():
        found = _backbone(network, rule)
        quantity = f"kept by the frozen backbone, {network}, {rule or 'baseline rules'}"
        rows.append(_rederived(quantity, "bytes", text, found.kept_bytes, "slopes below a bias"))
    by_op = {op: sum(r.bytes for r in _backbone("mobilenet_v3_large", "").rows if r.op == op) for op in PARTS}
    for op, text in PARTS.items():
        rows.append(_rederived(f"of these, {op}, mobilenet_v3_large", "bytes", text, by_op[op], "baseline rules"))
    return rows


def _rederived(quantity: str, unit: str, text: str, computed: int, convention: str) -> Result:
    return Result("rep-net", quantity, unit, text, computed, convention, REDERIVED)


def _backbone(network: str, rule: str) -> Ledger:
    rules = dict([rule.split("=")]) if rule else {}
    model = methods.get("ft-bias", rules=rules).apply(networks.get(network, num_classes=CLASSES))
    return predict(model, batch=BATCH, resolution=RESOLUTION)
