"""The networks, each a table of blocks in a file of its own."""

from collections.abc import Callable
from typing import Any

from minitl.errors import unknown
from minitl.networks.digits_irb import digits_irb
from minitl.networks.irb import SingleBlock, irb
from minitl.networks.mobilenet_v2 import mobilenet_v2
from minitl.networks.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from minitl.networks.network import Model, Network
from minitl.networks.proxyless_mobile import proxyless_mobile

NETWORKS: dict[str, Callable[..., Network]] = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "proxyless_mobile": proxyless_mobile,
    "digits_irb": digits_irb,
}


def get(name: str, **options: Any) -> Network:
    """Build the network of that name; options are those of its function."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](**options)


__all__ = [
    "NETWORKS",
    "Model",
    "Network",
    "SingleBlock",
    "digits_irb",
    "get",
    "irb",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "proxyless_mobile",
]
