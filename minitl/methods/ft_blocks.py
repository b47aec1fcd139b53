"""ft-blocks: fine-tune the top blocks and everything above them, as usual; freeze the rest.

The vanilla baseline of the MobileTL paper ("FT-k"). The frozen layers run with their running
statistics folded into their weights and keep nothing.
"""

from minitl.layers import FROZEN, Layer, LayerPlan
from minitl.methods.method import Method, trained_as_usual


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """Layers of the top `blocks` blocks and above are trained as usual; all others are frozen."""
    return trained_as_usual(layer) if layer.height <= blocks else FROZEN


ft_blocks = Method(
    "ft-blocks",
    "the top blocks and above, batch statistics",
    policy,
    takes_blocks=True,
    keeps="inputs of the tuned part",
    published="MobileTL's baseline",
)
