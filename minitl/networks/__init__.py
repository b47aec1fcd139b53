"""The networks, each a table in a file of its own (`tables/`), and what reads and builds them."""

from minitl.networks.builtin import NETWORKS, from_table, get, load
from minitl.networks.irb import SingleBlock, irb
from minitl.networks.model import Model
from minitl.networks.network import Network

mobilenet_v2 = NETWORKS["mobilenet_v2"]
mobilenet_v3_small = NETWORKS["mobilenet_v3_small"]
mobilenet_v3_large = NETWORKS["mobilenet_v3_large"]
proxyless_mobile = NETWORKS["proxyless_mobile"]
digits_irb = NETWORKS["digits_irb"]

__all__ = [
    "NETWORKS",
    "Model",
    "Network",
    "SingleBlock",
    "digits_irb",
    "from_table",
    "get",
    "irb",
    "load",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "proxyless_mobile",
]
