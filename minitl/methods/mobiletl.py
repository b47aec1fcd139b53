"""mobiletl: the top blocks, with shift-only inner norms and one-bit activation gradients.

Chiang, Frumkin, Liang, Marculescu: MobileTL (AAAI 2023, arXiv:2212.03246). In the tuned blocks

1. the two inner norms (after expand and after depthwise) train their shift only, with frozen
   scale and statistics: they keep nothing, where a batch norm keeps its normalised input;
2. inner activations, and the head's, use the sign rule gx = gy 1[x >= 0]: 1 bit per element,
   where ReLU6 takes 2 and Hard-Swish 32. (ReLU's own slope already is one bit, and exact.)

All else (convolutions, squeeze-and-excite, the block's last norm, the head) is trained as
usual, and everything below the tuned blocks is frozen.
"""

from minitl.layers import FROZEN, Activation, Layer, LayerPlan
from minitl.methods.method import Method, trained_as_usual

INNER_NORMS = ("expand_norm", "depthwise_norm")
SIGNED = ("expand_act", "depthwise_act", "head_act", "classifier_act")


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """Shift-only inner norms, sign rule where the activation has one, all else as usual or frozen."""
    if layer.height > blocks:
        return FROZEN
    if layer.role in INNER_NORMS:
        return LayerPlan(train=frozenset({"bias"}))
    if isinstance(layer, Activation) and layer.role in SIGNED and "sign" in layer.op.rules:
        return LayerPlan(rule="sign")
    return trained_as_usual(layer)


mobiletl = Method(
    "mobiletl",
    "the top blocks; inner norms: shift only; activations: sign rule",
    policy,
    takes_blocks=True,
    keeps="inputs of convolutions, 1 bit per activation",
    published="Chiang et al. 2023, arXiv:2212.03246",
)
