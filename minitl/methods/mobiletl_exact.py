"""mobiletl-exact: MobileTL's trained set with exact activation gradients, in no more memory.

What the next layer keeps anyway tells the slope. An inner activation's output y is the input of
the convolution (or of the squeeze-and-excite) after it, which keeps it to train its weights:

- ReLU and ReLU6: the slope is 1 where 0 < y (< 6). No mask at all.
- Hard-Swish: y and one bit, the side of x = -3/2, give the exact slope; MobileTL's mask takes as much.
- Squeeze-and-excite: the gate scales the projection's weights instead of the map, so the gated
  map, which the projection would keep, is never built.

SiLU's output does not tell its slope in a bit or two: it keeps its input. So does Hard-Swish above the blocks, where
the head's activation feeds a pool and nobody keeps its output; ReLU6 keeps a band mask there.
"""

from dataclasses import replace

from minitl.kernels.rules import Codes, FromOutput
from minitl.layers import Activation, Layer, LayerPlan
from minitl.methods.method import Method
from minitl.methods.mobiletl import SIGNED, mobiletl
from minitl.ops import Op


def exact_rule(op: Op, *, output_kept: bool) -> str:
    """The exact rule that takes fewest bits of its own: of an output that is kept anyway at most one."""

    def bits(name: str) -> int:
        rule = (op.elementwise or {})[name]
        if isinstance(rule, FromOutput):
            return (rule.border is not None) + (0 if output_kept else 32)
        return rule.bits if isinstance(rule, Codes) else 32

    return min((name for name in op.elementwise or {} if name not in op.approximate), key=bits)


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """As mobiletl, with exact rules that share what is kept anyway."""
    plan = mobiletl.policy(layer, blocks)
    if layer.height <= blocks and isinstance(layer, Activation) and layer.role in SIGNED:
        return replace(plan, rule=exact_rule(layer.op, output_kept=layer.height > 0))
    return replace(plan, rule="folded") if layer.height <= blocks and layer.role == "se_scale" else plan


mobiletl_exact = Method(
    "mobiletl-exact",
    "as mobiletl, but exact gradients from what is kept anyway",
    policy,
    takes_blocks=True,
    keeps="inputs of convolutions, which tell the slopes",
    published="here",
)
