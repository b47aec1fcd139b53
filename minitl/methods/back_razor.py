"""back-razor: everything but the norms, with the larger half of each convolution's input kept.

Jiang et al., NeurIPS 2022, in its `full_noBN` setting: norms stay frozen. Exactly half of each sample's
values are kept, ties by index; this is minitl's own rule (`ops.rules.razor` says why). Input gradients are
exact, weight gradients those of the halved input.
"""

from dataclasses import replace

from minitl.layers import FROZEN, Conv, Layer, LayerPlan, Linear, Norm
from minitl.methods.method import Method, trained_as_usual


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """Norms frozen; convolutions and linear layers trained by the rule `razor`."""
    if isinstance(layer, Norm):
        return FROZEN
    plan = trained_as_usual(layer)
    return replace(plan, rule="razor") if isinstance(layer, Conv | Linear) else plan


back_razor = Method(
    "back-razor",
    "all but norms; half of each convolution's input is kept (ties by index)",
    policy,
    keeps="half of each convolution's input, one bit per element",
    published="Jiang et al., NeurIPS 2022; ties: here",
)
