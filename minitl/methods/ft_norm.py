"""ft-norm: train the scales and shifts of all norms, with batch statistics, and the final linear layer.

Few parameters, but every norm keeps its normalised input: parameters are not memory.
"""

from minitl.layers import FROZEN, Layer, LayerPlan, Norm
from minitl.methods.method import Method, is_final_linear, trained_as_usual


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """Norms and the final linear layer are trained as usual; all others are frozen."""
    return trained_as_usual(layer) if isinstance(layer, Norm) or is_final_linear(layer) else FROZEN


ft_norm = Method(
    "ft-norm",
    "norm scales and shifts (batch statistics), the final linear",
    policy,
    keeps="normalised inputs of norms, slopes",
    published="a baseline of Cai et al. 2020, arXiv:2007.11622",
)
