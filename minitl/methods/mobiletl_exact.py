"""mobiletl-exact: MobileTL's trained set with exact activation gradients, in no more memory.

What the next layer keeps anyway tells the slope. An inner activation's output y is the input of
the convolution (or of the squeeze-and-excite) after it, which keeps it to train its weights:

- ReLU and ReLU6: the slope is 1 where 0 < y (< 6). No mask at all.
- Hard-Swish: y and one bit, the side of x = -3/2, give the exact slope; MobileTL's mask takes as much.
- Squeeze-and-excite: the gate scales the projection's weights instead of the map, so the gated
  map, which the projection would keep, is never built.

SiLU's output does not tell its slope in a bit or two: it keeps its input, and is exact at that price.

Above the blocks no convolution follows: the head's activation feeds a pool. There exactness
keeps a band mask for ReLU6, and the input for Hard-Swish.
"""

from dataclasses import replace

from minitl.kernels.rules import Codes, FromOutput
from minitl.layers import Activation, Layer, LayerPlan
from minitl.methods.method import Method
from minitl.methods.mobiletl import mobiletl
from minitl.ops import Op


def exact_rule(op: Op, *, output_kept: bool) -> str:
    """The exact rule that takes least memory: from the output where that is kept anyway, else of the fewest bits."""
    rules = {name: rule for name, rule in (op.elementwise or {}).items() if name not in op.approximate}
    from_output = [name for name, rule in rules.items() if isinstance(rule, FromOutput)]
    if from_output and (output_kept or len(from_output) == len(rules)):
        return from_output[0]
    bits = {name: rule.bits if isinstance(rule, Codes) else 32 for name, rule in rules.items()}
    return min((name for name in rules if name not in from_output), key=bits.__getitem__)


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """As mobiletl, with exact rules that share what is kept anyway."""
    plan = mobiletl.policy(layer, blocks)
    if layer.height > blocks:
        return plan
    if isinstance(layer, Activation) and layer.role in ("expand_act", "depthwise_act"):
        return replace(plan, rule=exact_rule(layer.op, output_kept=True))
    if isinstance(layer, Activation) and layer.role in ("head_act", "classifier_act"):
        return replace(plan, rule=exact_rule(layer.op, output_kept=False))
    return replace(plan, rule="folded") if layer.role == "se_scale" else plan


mobiletl_exact = Method(
    "mobiletl-exact",
    "as mobiletl, but exact gradients from what is kept anyway",
    policy,
    takes_blocks=True,
    keeps="inputs of convolutions, which tell the slopes",
    published="here",
)
