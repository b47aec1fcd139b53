"""ft-bias: train every additive constant: norm shifts, biases of linear layers and of squeeze-and-excite.

Norms keep their scales and statistics frozen, so no convolution or norm keeps anything; what
remains are the activations' slopes down to the stem. (TinyTL-B of Cai et al. 2020,
arXiv:2007.11622; BitFit of Ben Zaken et al. 2022, DOI 10.18653/v1/2022.acl-short.1.)
"""

from minitl.layers import Layer, LayerPlan
from minitl.methods.method import Method, is_final_linear, trained_as_usual


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """Whatever is called bias is trained, and the final linear layer whole."""
    if is_final_linear(layer):
        return trained_as_usual(layer)
    return LayerPlan(train=frozenset({"bias"} & set(layer.parameters)))


ft_bias = Method(
    "ft-bias",
    "norm shifts (frozen statistics and scales), linear and SE biases, the final linear",
    policy,
    keeps="slopes of activations",
    published="Ben Zaken et al. 2022; Cai et al. 2020, arXiv:2007.11622",
)
