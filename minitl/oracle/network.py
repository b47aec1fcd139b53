"""A whole network as a case has it: its attributes as a table, and its layers under plain names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minitl import networks
from minitl.networks.names import Outline, Paths, torchvision_v2
from minitl.networks.network import Network
from minitl.oracle.recipes import LISTS, numbers


def network(attrs: Mapping[str, Any], dtype: str) -> Network:
    """stem -> blocks -> head -> pool -> classifier, with the numbers of `attrs` exactly."""
    of_blocks = zip(*(numbers(attrs[name]) for name in LISTS), strict=True)
    stages = [
        {"kernel": k, "stride": s, "expanded": wide, "channels": c, "squeeze_excite": {"channels": se} if se else False}
        for k, s, wide, c, se in of_blocks
    ]
    table = {
        "stem": {"channels": attrs["stem"], "activation": attrs["activation"]},
        "stages": stages,
        "block": {"activation": attrs["activation"]},
        "head": {"channels": attrs["head"], "activation": attrs["activation"]},
        "num_classes": attrs["classes"],
        "divisor": 1,
        "eps": attrs["eps"],
        "momentum": attrs["momentum"],
    }
    return _renamed(networks.from_table(table, dtype=dtype))


def _renamed(net: Network) -> Network:
    """The layers called as in a block's case, those of a block with its number before: `block1.expand`."""
    theirs = torchvision_v2(net.outline)
    ours = dict(zip(theirs.all(), _plain(net.outline, theirs).all(), strict=True))
    for layer in net.layers():
        layer.path = ours[layer.path]
        for name, parameter in layer.parameters.items():
            parameter.name = f"{layer.path}.{name}"
    return net


def _plain(outline: Outline, like: Paths) -> Paths:
    def three(kind: str) -> tuple[str, str, str]:
        return kind, f"{kind}_norm", f"{kind}_act"

    blocks = tuple({part: f"block{i}.{part}" for part in paths} for i, paths in enumerate(like.blocks, start=1))
    hidden = ("hidden", "hidden_act") if outline.hidden else ("", "")
    return Paths(three("stem"), blocks, three("head"), "pool", (*hidden, "dropout", "classifier"))
