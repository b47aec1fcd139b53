"""mobiletl-recompute: as mobiletl-exact, and the depthwise convolution's input is computed again.

A block's expanding convolution, with a frozen norm and an activation, makes the depthwise
convolution's input from the block's own input. The latter is a sixth of its size and kept
anyway; so backward runs the three again instead of keeping what they made. The norm's
statistics are frozen, so this gives the same numbers to the bit. It costs the expanding and the
depthwise convolution's forward once more.
"""

from dataclasses import replace

from minitl.layers import Layer, LayerPlan
from minitl.methods.method import Method
from minitl.methods.mobiletl_exact import mobiletl_exact


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """As mobiletl-exact, with `recompute` on the expanding convolutions of the tuned blocks."""
    plan = mobiletl_exact.policy(layer, blocks)
    return replace(plan, recompute=True) if layer.role == "expand" and layer.height <= blocks else plan


mobiletl_recompute = Method(
    "mobiletl-recompute",
    "as mobiletl-exact; depthwise inputs are recomputed",
    policy,
    takes_blocks=True,
    keeps="the same without depthwise inputs",
    published="here",
)
