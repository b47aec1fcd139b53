"""Layers: parameters, and the choice of op and rule that a method makes for them."""

from minitl.layers.conv import Conv
from minitl.layers.layer import Layer
from minitl.layers.loss import cross_entropy
from minitl.layers.norm import Norm
from minitl.layers.plain import Activation, Add, Dropout, Pool, Scale
from minitl.layers.plan import FROZEN, LayerPlan
from minitl.layers.product import Adaptor, Linear, Product
from minitl.records import ROLES

__all__ = [
    "FROZEN", "ROLES", "Activation", "Adaptor", "Add", "Conv", "Dropout", "Layer", "LayerPlan", "Linear", "Norm",
    "Pool", "Product", "Scale", "cross_entropy",
]  # fmt: skip
