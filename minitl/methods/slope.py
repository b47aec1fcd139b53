"""slope: ft-blocks with the weights of 1x1 convolutions and inner linear layers pruned to 2 of 4; adaptors at the end.

SLoPe (Mozaffari et al., ICLR 2025, arXiv:2405.16325) is a pretraining method for language models; here its rule
(`ops.rules.sparse`) runs on the 1x1 layers of the tuned part whose channels 4 divides. In the last hundredth of a run
low-rank adaptors train beside them, as in the source. It would skip a layer six times as wide as long, which is every
one of a MobileNet's blocks: that is left out. No byte less is kept than by `ft-blocks`: inputs stay dense. Applying
the method prunes the weights for good.
"""

from dataclasses import replace

from minitl.layers import Layer, LayerPlan, Product
from minitl.methods.ft_blocks import ft_blocks
from minitl.methods.lora import both
from minitl.methods.lora import rank as lora_rank
from minitl.methods.method import Method

PATTERN = (2, 4)  # N of M


def rank(layer: Product, blocks: int) -> int:
    """That of `lora`, beside the layers that are pruned."""
    fits = all(side % PATTERN[1] == 0 for side in layer.parameters["weight"].value.shape[:2])
    return lora_rank(layer, blocks) if fits else 0


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """As ft-blocks, pruned where an adaptor stands; the adaptors do not train."""
    if layer.role.startswith("low_rank_"):
        return LayerPlan()
    plan = ft_blocks.policy(layer, blocks)
    return replace(plan, pattern=PATTERN) if isinstance(layer, Product) and rank(layer, blocks) else plan


def late(layer: Layer, blocks: int) -> LayerPlan:
    """The adaptors train, too."""
    return both(layer, blocks) if layer.role.startswith("low_rank_") else policy(layer, blocks)


slope = Method(
    "slope",
    "as ft-blocks, 1x1 weights 2 of 4; adaptors at the end",
    policy,
    takes_blocks=True,
    rank=rank,
    late=late,
    keeps="what ft-blocks keeps",
    published="Mozaffari et al. 2025, arXiv:2405.16325",
)
