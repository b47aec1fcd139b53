"""sparse-update: biases, and in the top blocks the weights of some input channels (after MCUNetV3).

Lin et al., NeurIPS 2022, arXiv:2206.15472. In the top blocks every norm's shift trains, and of each first 1x1
convolution the weights of a quarter of its input channels, those of largest weight norm (the source's
`magnitude+`); only these channels of its input are kept. The source chooses layers and shares per
network by a search, and trains in 8 bits; here all is floating point, and share and layers are minitl's
own defaults, or what fits a budget (`accounting.sparse_budget`). A gradient is held in full, with zeros for
the other channels.
"""

from dataclasses import replace
from functools import partial

from minitl.layers import FROZEN, Conv, Layer, LayerPlan
from minitl.methods.ft_bias import ft_bias
from minitl.methods.method import Method

SHARE = 4  # one channel of so many


def policy(layer: Layer, blocks: int, share: int = SHARE) -> LayerPlan:
    """Biases of the top blocks and above; of expanding convolutions one channel of `share`; the final linear."""
    if layer.height > blocks:
        return FROZEN
    if isinstance(layer, Conv) and layer.role == "expand":
        count = max(1, layer.parameters["weight"].value.shape[1] // share)
        return LayerPlan(train=frozenset({"weight"}), rule="channels", channels=count)
    return ft_bias.policy(layer, blocks)


sparse_update = Method(
    "sparse-update",
    "the top blocks' biases, and a quarter of the input channels of their expanding convolutions",
    policy,
    takes_blocks=True,
    keeps="some channels of inputs, slopes",
    published="Lin et al. 2022, arXiv:2206.15472; shares: here",
)


def one_of(share: int) -> Method:
    """The method with one channel of `share` in place of a quarter."""
    return replace(sparse_update, policy=partial(policy, share=share))
