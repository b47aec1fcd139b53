"""ft-last: train the final linear layer only, on features of a frozen network. The lower end of memory."""

from minitl.layers import FROZEN, Layer, LayerPlan
from minitl.methods.method import Method, is_final_linear, trained_as_usual


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """The layer that gives the logits is trained; all others are frozen."""
    return trained_as_usual(layer) if is_final_linear(layer) else FROZEN


ft_last = Method(
    "ft-last",
    "the final linear layer",
    policy,
    keeps="the final linear layer's input",
    published="usual practice",
)
