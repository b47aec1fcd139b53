"""Whole models of PyTorch modules: the frozen layers below, the tuned ones above."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minitl.bench.rivals import WHOLE_BLOCK
from minitl.bench.rivals.modules import Builder
from minitl.bench.rivals.whole_block import WholeBlock
from minitl.layers import Dropout, Linear
from minitl.networks import Model, Network
from minitl.networks.irb import SingleBlock


def torch_model(model: Model, builder: Builder) -> Any:
    """The module that computes what the model does."""
    if isinstance(model, SingleBlock):
        return _block(model.block, builder)
    assert isinstance(model, Network)
    return TorchNetwork(model, builder)


class TorchNetwork(nn.Module):
    """A network whose frozen layers leave no trace for autograd."""

    def __init__(self, network: Network, builder: Builder) -> None:
        super().__init__()
        tuned = len(network.blocks) if network.tuned_blocks is None else network.tuned_blocks
        stem, blocks = builder.conv_norm(network.stem), [_block(block, builder) for block in network.blocks]
        everything, border = [stem, *blocks], 1 + len(blocks) - tuned
        if any(p.requires_grad for p in stem.parameters()):
            border = 0
        self.frozen = nn.Sequential(*everything[:border])
        head = [builder.conv_norm(network.head)] if network.head else []
        self.tuned = nn.Sequential(*everything[border:], *head)
        layers = [layer for layer in network.classifier if not isinstance(layer, Dropout)]
        classifier = [builder.linear(x) if isinstance(x, Linear) else builder.activation(x) for x in layers]
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        with torch.no_grad():
            x = self.frozen(x)
        return self.head(self.tuned(x))


def _block(block: Any, builder: Builder) -> Any:
    if builder.form == WHOLE_BLOCK and WholeBlock.fits(block):
        return WholeBlock(block, builder)
    return builder.block(block)
