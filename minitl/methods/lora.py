"""lora, lora-fa: low-rank factors beside the 1x1 convolutions of the top blocks and the head, and the final linear.

LoRA (Hu et al., ICLR 2022, arXiv:2106.09685) is here as the counter-example: a few parameters train, but the first
factor keeps the layer's whole input, as the weight itself would, and the second its own. LoRA-FA (Zhang et al. 2023,
arXiv:2308.03303) freezes the first factor at its random start: of each input r numbers per position are kept. (Beside a
depthwise convolution the factors would hold more numbers than its weight; there are none.) Norms are frozen.
"""

from minitl.layers import FROZEN, Layer, LayerPlan, Product
from minitl.methods.method import Method, is_final_linear, trained_as_usual

RANK = 8
ADAPTED = ("expand", "project", "head_conv", "classifier")  # but not the final linear


def rank(layer: Product, blocks: int) -> int:
    """8, or the layer's smaller side, for 1x1 convolutions and inner linear layers of the tuned part."""
    adapted = layer.role in ADAPTED and layer.height <= blocks and not is_final_linear(layer)
    return min(RANK, *layer.parameters["weight"].value.shape[:2]) if adapted else 0


def both(layer: Layer, blocks: int) -> LayerPlan:
    """Both factors and the final linear layer."""
    trained = layer.role in ("low_rank_down", "low_rank_up") or is_final_linear(layer)
    return trained_as_usual(layer) if trained else FROZEN


def second(layer: Layer, blocks: int) -> LayerPlan:
    """The second factor and the final linear layer."""
    return FROZEN if layer.role == "low_rank_down" else both(layer, blocks)


lora = Method(
    "lora",
    "factors of rank 8 beside 1x1 convolutions, the final linear",
    both,
    takes_blocks=True,
    rank=rank,
    keeps="inputs of 1x1 convolutions, factors' own, slopes",
    published="Hu et al. 2022, arXiv:2106.09685",
)
lora_fa = Method(
    "lora-fa",
    "as lora, the first factor frozen: keeps 8 numbers per position",
    second,
    takes_blocks=True,
    rank=rank,
    keeps="8 numbers per position, slopes",
    published="Zhang et al. 2023, arXiv:2308.03303",
)
